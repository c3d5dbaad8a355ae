"""Memory searched by its text: whatever a person types is answered, from the index, the best first."""

from __future__ import annotations

import math
from collections import Counter
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from myloware_store import InvalidInput, MemDocType, Store
from myloware_store.memory import text
from myloware_store.memory.search import SETTINGS
from tests.conftest import ROUNDS

if TYPE_CHECKING:
    from uuid import UUID

Match: TypeAlias = Literal["web", "any", "phrase", "prefix", "part"]

PASSAGES = {
    "fee": "The late fee is five percent of the invoice",
    "order": "An invoice is due; who pays late pays more, and a fee is added",
    "draft": "A draft invoice has no fee",
    "printer": "The printer on the second floor is on fire",
    "stairs": "Use the stairs when the printer burns",
}


def store(myloware: Store, passages: dict[str, str]) -> dict[UUID, str]:
    """Store passages one after the other, and return the names they have, by their ids."""
    names = {
        myloware.memory.upsert([{"type": "KNOWLEDGE", "content": content}])[0]: name
        for name, content in passages.items()
    }
    whole(myloware)
    return names


def whole(myloware: Store) -> None:
    """Let searches sample all documents: other tests leave many pages with none."""
    myloware.db.execute_sql("ANALYZE mem_docs")


@pytest.fixture
def names(myloware: Store) -> dict[UUID, str]:
    """Give the passages' names by their ids."""
    return store(myloware, PASSAGES)


def found(myloware: Store, names: dict[UUID, str], q: str, **options: Any) -> list[str]:
    """Search, and return the names of what was found."""
    return [names[hit.id] for hit in myloware.memory.search_text(q, **options)]


def test_what_holds_all_the_words_comes_before_what_holds_some(myloware: Store, names: dict[UUID, str]) -> None:
    """A score above 1 tells them apart, and orders all of them."""
    hits = myloware.memory.search_text("late fees of invoices")
    assert {"fee", "order"} == {names[hit.id] for hit in hits[:2]}
    assert ["draft"] == [names[hit.id] for hit in hits[2:]]
    scores = [hit.score for hit in hits if hit.score is not None]
    assert sorted(scores, reverse=True) == scores
    assert [True, True, False] == [score > 1 for score in scores]
    assert [None] * 3 == [hit.similarity for hit in hits]


def test_some_of_the_words_count_only_where_all_of_them_find_too_few(myloware: Store, names: dict[UUID, str]) -> None:
    """With k matches of all the words nothing else is looked at."""
    assert {"fee", "order"} == set(found(myloware, names, "late fees of invoices", k=2))
    assert ["printer"] == found(myloware, names, "printer fire", k=1)
    assert ["printer", "stairs"] == found(myloware, names, "printer fire xylophone", k=5)


def test_what_people_know_from_the_web(myloware: Store, names: dict[UUID, str]) -> None:
    """Phrases, `or`, and excluded words, which stay excluded where some of the words are enough."""
    assert "fee" == found(myloware, names, '"late fee"')[0]
    assert {"draft", "stairs"} == set(found(myloware, names, "draft or stairs"))
    assert {"fee", "order"} == set(found(myloware, names, "invoice fee -draft"))
    assert {"fee", "order"} == set(found(myloware, names, 'invoice xylophone -"draft invoice"'))
    assert {"printer", "stairs"} == set(found(myloware, names, "printer - 5 percent", k=5)) - {"fee"}


def test_any_and_phrase_are_taken_at_their_word(myloware: Store, names: dict[UUID, str]) -> None:
    """`any` treats all the words alike; `phrase` finds nothing but the phrase."""
    assert {"fee", "order", "draft", "printer", "stairs"} == set(
        found(myloware, names, "printers fees", match="any")
    ) | {"draft"}
    assert all((hit.score or 0) < 1 for hit in myloware.memory.search_text("fee", match="any"))
    assert ["fee"] == found(myloware, names, "late fee", match="phrase")
    assert [] == found(myloware, names, "fee late", match="phrase")


def test_excluded_words_alone_give_what_changed_last(myloware: Store, names: dict[UUID, str]) -> None:
    """The newest first."""
    assert ["stairs", "printer"] == found(myloware, names, "-invoice")
    assert ["stairs"] == found(myloware, names, "the -invoice", k=1)
    assert ["stairs", "printer"] == found(myloware, names, "-invoice", match="any")


def test_scripts_without_blanks_are_compared_by_pairs_of_characters(myloware: Store) -> None:
    """What holds more of the query comes first."""
    names = store(
        myloware,
        {
            "japanese": "請求書の支払期限は月末です。",
            "chinese": "发票的付款期限是三十天",
            "partly": "支払いは銀行振込でお願いします",
            "korean": "송장의 지급 기한은 삼십일입니다",
            "thai": "กำหนดชำระเงินของใบแจ้งหนี้",
            "english": "An invoice",
        },
    )
    first, *others = found(myloware, names, "請求書の支払期限はいつですか")
    assert ("japanese", {"chinese", "partly"}) == (first, set(others))
    assert ["chinese", "japanese"] == found(myloware, names, "付款期限")
    assert ["korean"] == found(myloware, names, "기한")
    assert ["thai"] == found(myloware, names, "ชำระเงิน", match="phrase")
    assert [] == found(myloware, names, "期限支払", match="phrase")
    assert ["japanese"] == found(myloware, names, "請", k=1)
    assert "english" == found(myloware, names, "invoice 票据")[0]


@pytest.mark.parametrize("match", ["web", "any", "phrase", "prefix", "part"])
@pytest.mark.parametrize(
    "q",
    [
        "",
        "   \n\t",
        "the of and",
        '"',
        '"unbalanced late fee',
        'late"fee"',
        "'; DROP TABLE mem_docs; --",
        "100 %s %(k)s %",
        "\\ \\' :* & | ! ( ) <-> <2>",
        "- -- --- -",
        "--late",
        "or or or",
        "-or",
        '-"',
        "😀 🏳️‍🌈",
        "http://example.com/a?b=1&c=2 a@example.com",
        "late-fee well-known-thing 3.14e10 -5",
        "ß" * 3000,
        "late fee " * 12_000,
        " ".join(f"word{n}" for n in range(20_000)),
        "請求書" * 30_000,
        "-late " * 20_000,
        '"' * 100_000,
    ],
)
def test_nothing_that_a_person_types_is_refused(myloware: Store, names: dict[UUID, str], q: str, match: Match) -> None:
    """Stop words, quotes, operators, 100 KB, any script."""
    for highlight in (False, True):
        myloware.memory.search_text(q, match=match, highlight=highlight)


@settings(max_examples=150 * ROUNDS, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    q=st.lists(
        st.sampled_from([*"-\" &|!():*'\\", "late", "fee", "the", "請求", "or", "<->"])
        | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=5),
        max_size=12,
    ).map("".join),
    match=st.sampled_from(["web", "any", "phrase", "prefix", "part"]),
)
def test_no_text_is_refused(myloware: Store, q: str, match: Match) -> None:
    """Whatever is put together; and every hit is there once."""
    hits = myloware.memory.search_text(q, match=match)
    assert len({hit.id for hit in hits}) == len(hits)


def test_filter_and_tenant_narrow_the_search(myloware: Store, names: dict[UUID, str]) -> None:
    """In every way of searching: all words, some words, the latest."""
    with myloware.tenant("globex"):
        (foreign,) = myloware.memory.upsert(
            [{"type": "CONTEXT", "content": "The printer 請求書", "metadata": {"n": 1}}]
        )
        for q in ("printer", "printer xylophone", "-invoice", "請求"):
            assert [foreign] == [hit.id for hit in myloware.memory.search_text(q)]
    for q in ("printer", "printer xylophone", "-invoice", "請求"):
        assert [foreign] == [hit.id for hit in myloware.memory.search_text(q, filter={"metadata.n": {"gte": 1}})]
        with myloware.tenant("acme"):
            assert [] == myloware.memory.search_text(q)
    (hit,) = myloware.memory.search_text("printer", filter={"type": "CONTEXT"})
    assert (MemDocType.CONTEXT, {"n": 1}, None) == (hit.type, hit.metadata, hit.highlight)


def test_highlights_show_the_words_in_their_passages(myloware: Store, names: dict[UUID, str]) -> None:
    """Only where they are asked for, also of hits with some of the words."""
    (hit, *_) = myloware.memory.search_text("fires xylophone", highlight=True)
    assert hit.highlight is not None
    assert hit.highlight.endswith("second floor is on **fire**")
    long = "filler " * 1000 + "the zebra crosses " + "filler " * 1000
    myloware.memory.upsert([{"type": "CONTEXT", "content": long}])
    (hit,) = myloware.memory.search_text("zebra", highlight=True)
    assert hit.highlight is not None
    assert "**zebra**" in hit.highlight
    assert len(hit.highlight) < 300


@pytest.mark.parametrize(
    ("content", "q", "highlight"),
    [
        ("„Mahnung“ (zwei)", "mahnung", "„**Mahnung**“ (zwei)"),
        ("Das Café Müller.", "cafe muller", "Das **Café** **Müller**."),
        ("Invoice HP-2025-0142, paid", "hp2025 0142", "Invoice **HP-2025-0142**, paid"),
        ("請求書の支払期限は月末です。", "請求書 期限", "**請求書**の支払**期限**は月末です。"),
        ("송장의 지급 기한은", "기한", "송장의 지급 **기한**은"),
        ("fee " + "filler " * 60 + "a zebra. " + "filler " * 60, "fee zebra", None),
        ("nothing", "-fee", "nothing"),
    ],
)
def test_highlights_show_the_original_text(myloware: Store, content: str, q: str, highlight: str | None) -> None:
    """With its case, accents and punctuation, however its words are compared; at most two passages."""
    myloware.memory.upsert([{"type": "CONTEXT", "content": content}])
    (hit,) = myloware.memory.search_text(q, highlight=True)
    if highlight is not None:
        assert highlight == hit.highlight
    else:
        first, second = (hit.highlight or "").split(" ... ")
        assert first.startswith("**fee** filler")
        assert "a **zebra**. filler" in second
        assert max(len(first), len(second)) < 170


def test_runs_without_blanks_are_found_and_shown_in_bounded_time(myloware: Store) -> None:
    """However long they are, by the whole run or by a part that `_` marks off."""
    run = "x1_" * 600 + "abc_def"
    hostile = "1_" * 5000 + " zebra " + "\u0323\u0301" * 30_000
    with myloware.db.atomic():
        myloware.db.execute_sql("SET LOCAL statement_timeout = '10s'")
        names = store(myloware, {"long": "y" * 600, "parts": run, "hostile": hostile})
        for q, name in (("y" * 600, "long"), (run, "parts"), ("abc_def", "parts"), ("def", "parts")):
            assert name == found(myloware, names, q, highlight=True)[0]
        assert ["hostile", "parts"] == sorted(found(myloware, names, "zebra abc", highlight=True))


def test_the_only_document_with_the_decisive_word_is_found(myloware: Store) -> None:
    """However many have the others; also in the text's part of a hybrid search, without statistics."""
    myloware.db.execute_sql(
        "INSERT INTO mem_docs (tenant_id, type, content)"
        " SELECT 'default', 'CONTEXT', 'The monthly report of shop ' || n || ', with figures and a summary.'"
        " FROM generate_series(1, 8000) AS n"
    )
    (zebra,) = myloware.memory.upsert([{"type": "CONTEXT", "content": "The monthly report mentions a zebra crossing."}])
    for q in ("what does the monthly report say about zebras?", "report zebra", "zebra report -giraffe"):
        for match in ("web", "any"):
            hits = myloware.memory.search_text(q, match=match)
            assert [zebra] == [hit.id for hit in hits]
    assert zebra == myloware.memory.hybrid([1.0] * 1536, "report zebra")[0].id
    with myloware.tenant("default"):
        assert zebra == myloware.memory.search_text("report zebra", match="any")[0].id
    hits = myloware.memory.search_text("monthly report", k=100)
    assert 100 == len(hits)


def test_only_so_many_matches_are_ranked(myloware: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it costs has a bound; as many as are asked for come all the same, those with all the words first."""
    monkeypatch.setattr(text, "MOST", 5)
    monkeypatch.setattr(text, "FEW", 5)
    myloware.memory.upsert([{"type": "CONTEXT", "content": f"same word {n}"} for n in range(30)])
    (both,) = myloware.memory.upsert([{"type": "CONTEXT", "content": "a word for the last one of others"}])
    whole(myloware)
    assert [3, 10, 31] == [len(myloware.memory.search_text("word", k=k)) for k in (3, 10, 100)]
    assert both == myloware.memory.search_text("word others same last", k=1)[0].id
    assert both == myloware.memory.search_text("word others", k=1)[0].id


def test_ties_come_in_the_order_of_their_ids(myloware: Store) -> None:
    """The same answer each time."""
    ids = myloware.memory.upsert([{"type": "CONTEXT", "content": "the same words"} for _ in range(20)])
    for match in ("web", "any", "phrase"):
        assert sorted(ids)[:7] == [hit.id for hit in myloware.memory.search_text("same words", k=7, match=match)]


@pytest.mark.parametrize("tenant", [None, "acme"])
@pytest.mark.parametrize(("k1", "b"), [(1.2, 0.4), (0, 0), (2, 1)])
def test_scores_are_those_of_bm25(myloware: Store, k1: float, b: float, tenant: str | None) -> None:
    """As Python computes them from the words of all documents; a word counts less each further time, as for ts_rank."""
    random = np.random.default_rng(7)
    vocabulary = ["zebra", "lion", "tiger", "bear", "wolf", "horse", "eagle", "goat"]
    chances = np.array([1, 2, 4, 8, 16, 16, 16, 16]) / 79
    with myloware.tenant("acme"):
        texts = [" ".join(random.choice(vocabulary, size=random.integers(1, 12), p=chances)) for _ in range(60)]
        ids = myloware.memory.upsert([{"type": "CONTEXT", "content": text} for text in texts])
    whole(myloware)
    counts = [Counter(text.split()) for text in texts]
    average = float(np.mean([len(count) for count in counts]))

    def bm25(count: Counter[str], words: list[str]) -> float:
        score = total = 0.0
        for word in words:
            held_by = max(0.5, sum(word in other for other in counts))
            weight = math.log(1 + (len(texts) - held_by + 0.5) / (held_by + 0.5))
            times = sum(1 / n**2 for n in range(1, count[word] + 1))
            total += weight * (k1 + 1)
            if times:
                score += weight * times * (k1 + 1) / (times + k1 * (1 - b + b * len(count) / average))
        return score / total

    for words in (["zebra"], ["lion", "wolf"], ["bear", "goat", "zebra", "horse"]):
        expected = {
            doc: bm25(count, words) + all(count[word] for word in words)
            for doc, count in zip(ids, counts, strict=True)
            if any(count[word] for word in words)
        }
        with myloware.tenant(tenant) if tenant else nullcontext():
            hits = myloware.memory.search_text(" ".join(words), k=60, k1=k1, b=b)
        assert expected == pytest.approx({hit.id: hit.score for hit in hits})
        assert hits == sorted(hits, key=lambda hit: (-(hit.score or 0), hit.id))


def test_a_word_as_it_is_written_counts_more(myloware: Store) -> None:
    """With the accents of the query, or in one piece."""
    names = store(myloware, {"bare": "the cafe and resume", "written": "the café and résumé"})
    assert ["written", "bare"] == found(myloware, names, "café")
    assert ["bare", "written"] == found(myloware, names, "cafe")


def test_a_document_with_both_scripts_comes_first(myloware: Store) -> None:
    """Among those with words of one."""
    names = store(myloware, {"english": "go deployment", "chinese": "部署", "both": "go 部署 deployment"})
    assert "both" == found(myloware, names, "go 部署 deployment")[0]


def test_a_typing_error_finds_the_words_that_it_is_close_to(myloware: Store) -> None:
    """One letter too many, too few, another one or two swapped; but not if a document has the word as it is typed."""
    names = store(myloware, {"zebra": "a zebra crossing", "cobra": "the cobra sleeps", "code": "HP-2025 and HP-2026"})
    for q in ("zbera", "zebrra", "zeba", "zobra", "zebra crosing", "crossign"):
        assert "zebra" == found(myloware, names, q)[0]
        assert "zebra" == found(myloware, names, q, match="any", filter={"type": "KNOWLEDGE"})[0]
    assert ["cobra"] == found(myloware, names, "cobra")
    assert (
        []
        == found(myloware, names, "xebro")
        == found(myloware, names, "2027")
        == found(myloware, names, "zbera", match="phrase")
    )
    with myloware.tenant("globex"):
        assert [] == myloware.memory.search_text("zbera")


def test_beginnings_and_parts_of_words(myloware: Store) -> None:
    """`prefix` finds words that begin like those of the query, `part` those that contain them."""
    names = store(myloware, {"compound": "Die Mahngebühren für 2025", "word": "Eine Gebühr", "other": "Ein Mahnmal"})
    assert ["word"] == found(myloware, names, "Gebühr")
    assert {"word", "compound"} == set(found(myloware, names, "gebühr", match="part"))
    assert ["compound", "other"] == sorted(found(myloware, names, "mahn", match="prefix"))
    assert ["compound"] == found(myloware, names, "mahn -mahnmal", match="prefix")
    assert ["compound", "other"] == [*found(myloware, names, "mahnge", match="prefix"), "other"]
    assert ["compound", "other", "word"] == sorted(found(myloware, names, "gebü mahn", match="prefix"))
    assert "compound" == found(myloware, names, "gebü mahn", match="part")[0]
    assert [] == found(myloware, names, "xylophone", match="part")
    assert {"word", "compound"} <= set(found(myloware, names, '"gebühr" eine', match="part"))
    with myloware.tenant("globex"):
        assert [] == found(myloware, names, "gebühr", match="part")


@pytest.mark.parametrize("word", ["gardening", "running", "expiration", "university", "happiness", "studies", "theory"])
def test_a_word_is_found_by_each_of_its_beginnings_and_parts(myloware: Store, word: str) -> None:
    """Also by those that its stem does not have."""
    for content in (f"about {word} in a row", f"super{word}", "something else"):
        myloware.memory.upsert([{"type": "KNOWLEDGE", "content": content}])
    for end in range(3, len(word) + 1):
        found = [hit.content for hit in myloware.memory.search_text(word[:end], match="prefix")]
        assert word[:end] == "the" or [f"about {word} in a row"] == found, word[:end]
        assert f"about {word} in a row" in [
            hit.content for hit in myloware.memory.search_text(f"{word[:end]} row", match="prefix")
        ]
        if word[:end] != "the":
            found = [hit.content for hit in myloware.memory.search_text(word[:end], match="part")]
            assert [f"about {word} in a row", f"super{word}"] == sorted(found), word[:end]


@pytest.mark.parametrize(
    ("content", "queries"),
    [
        ("Http2Client opens a stream", ["http2 client", "http2", "client", "http", "HTTP2CLIENT", "http 2"]),
        ("s3Bucket, base64Encode(x), mp3Player", ["s3", "bucket", "base64", "encode", "mp3", "s3 bucket"]),
        ("iPhone15Pro and log4j2, v2beta1, OAuth2.0", ["iphone", "iPhone 15 Pro", "log4j", "v2", "oauth 2"]),
        ("2025-11-03T10:22:31Z ERROR", ["2025-11-03", "10:22:31", "11-03", "2025-11-03 10:22", "T10"]),
        ("sha256sum of win32api", ["sha256", "win32", "api", "sum"]),
    ],
)
def test_letters_and_digits_beside_each_other_are_parts(myloware: Store, content: str, queries: list[str]) -> None:
    """As whole words; but not in keys, where they come by turns."""
    (doc, _) = myloware.memory.upsert([{"type": "KNOWLEDGE", "content": text} for text in (content, "a1b2c3d4e5")])
    for q in queries:
        hits = myloware.memory.search_text(q)
        assert (doc, True) == (hits[0].id, (hits[0].score or 0) > 1), q
    assert [] == myloware.memory.search_text("d")


def test_typing_errors_are_those_of_words_not_of_stems(myloware: Store) -> None:
    """Wherever in a word they are."""
    words = "information connection application available deployment transaction retry query company"
    (doc,) = myloware.memory.upsert([{"type": "KNOWLEDGE", "content": words}])
    for word in words.split():
        for at in range(1, len(word) - 1):
            for typo in (word[:at] + word[at + 1 :], word[:at] + word[at + 1] + word[at] + word[at + 2 :]):
                assert [doc] == [hit.id for hit in myloware.memory.search_text(typo)], typo


def test_a_part_is_found_in_words_whose_stems_cut_it(myloware: Store) -> None:
    """The end of a compound, too."""
    names = store(myloware, {"german": "Ansprechpartner, Fußball, Versicherungsnehmer", "english": "the transaction"})
    assert all(["german"] == found(myloware, names, q, match="part") for q in ("partner", "ball", "nehmer", "partn"))
    assert all(["english"] == found(myloware, names, q, match="part") for q in ("action", "saction", "trans", "acti"))


def test_a_command_excludes_nothing_by_its_options(myloware: Store) -> None:
    """One or two letters or digits after a minus; more of them, or a quotation, are left out."""
    names = store(
        myloware, {"apply": "kubectl apply -f deploy.yaml", "rm": "rm -rf /tmp at -5 degrees", "f": "f, rf 5"}
    )
    for q, name in (("kubectl apply -f deploy.yaml", "apply"), ("rm -rf /tmp", "rm"), ("at -5 degrees", "rm")):
        assert name == found(myloware, names, q)[0]
    assert ["rm"] == found(myloware, names, 'rf -5 -kubectl -"f"')


def test_beginnings_leave_out_stop_words(myloware: Store) -> None:
    """They are nothing that a document must have, or is found by."""
    names = store(myloware, {"garden": "gardens and thyme", "theory": "a theory", "bare": "a bus"})
    ((garden, score),) = [
        (names[hit.id], hit.score) for hit in myloware.memory.search_text("a the garde", match="prefix")
    ]
    assert ("garden", True) == (garden, (score or 0) > 1)
    assert ["theory"] == found(myloware, names, "theor", match="part") == found(myloware, names, "the", match="prefix")
    assert [] == found(myloware, names, "buses", match="part", filter={"type": "CONTEXT"})


def test_a_quoted_phrase_is_one_of_the_words(myloware: Store, names: dict[UUID, str]) -> None:
    """What has it and the other words comes first; a mark that stands for inches quotes nothing."""
    for q in (
        '"late fee" invoice',
        "“late fee” invoice",
        "„late fee“ invoice",
        "«late fee» invoice",
        "»late fee« invoice",
    ):
        hits = myloware.memory.search_text(q)
        assert ["fee"] == [names[hit.id] for hit in hits if (hit.score or 0) > 1]
        assert {"fee", "order"} <= {names[hit.id] for hit in hits}
    assert "fee" == found(myloware, names, '"late fe" invoi', match="prefix")[0]
    assert ["fee"] == found(myloware, names, 'fee -"draft invoice" -"pays late"')
    names = store(myloware, {"frame": "a frame of 5 by 7 inches", "order": "an order of 5 frames"})
    ((first, score), *_) = [(names[hit.id], hit.score) for hit in myloware.memory.search_text('5" x 7" frame')]
    assert ("frame", False) == (first, (score or 0) > 1)


@pytest.mark.parametrize(
    ("stored", "others"),
    [
        ("E_CONN_RESET EConnReset", "E CONN RESET,econnreset,e-conn-reset"),
        ("MAX_RETRY_COUNT maxRetryCount MaxRetryCount", "max retry count,max-retry-count,maxretrycount"),
        ("user_id userId UserID", "user id,userid,user-id"),
        ("parseHTTPResponse parse_http_response", "parse http response,parsehttpresponse"),
        ("PDFReader PDF_READER", "pdf reader,pdf-reader,pdfreader"),
        ("getHTTPResponseCode", "HTTPResponse,httpResponse,http_response,http response code"),
        ("econnreset", "e-conn-reset,E_CONN_RESET,eConnReset"),
        ("Müller_Straße_Id MüllerStraßeId", "müller straße id,mullerstrasseid"),
    ],
)
def test_an_identifier_without_digits_is_found_in_every_spelling(myloware: Store, stored: str, others: str) -> None:
    """If it is stored with _ or with capitals that tell its parts; by all of them, and by its parts as words."""
    for content in stored.split():
        (doc,) = myloware.memory.upsert([{"type": "KNOWLEDGE", "content": f"It fails with self.x({content})."}])
        for asked in (*stored.split(), *others.split(",")):
            hits = myloware.memory.search_text(asked, k=1)
            assert [(doc, True)] == [(hit.id, (hit.score or 0) > 1) for hit in hits], (content, asked)
        myloware.memory.delete(doc)


def test_accented_forms_are_small_whatever_the_locale(myloware: Store) -> None:
    """Where LC_CTYPE is C, the dictionary makes no letter beyond ASCII small."""
    for content in ("École", "École HP-12"):
        ((forms,),) = myloware.db.execute_sql("SELECT (content_words(%s))[2]", (content,))
        assert "école" in forms.split()


def test_what_is_no_identifier_is_not_joined_or_cut(myloware: Store) -> None:
    """Short numbers with a decimal point, and the plural of an abbreviation."""
    myloware.memory.upsert([{"type": "KNOWLEDGE", "content": "1.5 litres, 2,5 kg and the URLs"}])
    assert all([] == myloware.memory.search_text(q) for q in ("15", "25", "ur", "ls", "u"))
    assert all(myloware.memory.search_text(q) for q in ("1.5", "2,5", "urls"))


def test_a_typing_error_is_one_whatever_documents_that_are_not_searched_hold(myloware: Store) -> None:
    """Expired ones, and those outside of the filter, which are not corrected to either."""
    docs: list[dict[str, Any]] = [
        {"content": "the harvest begins", "metadata": {"n": 1}},
        {"content": "a harvvest with a typing error", "metadata": {"n": 2}},
        {"content": "harvvest, too", "expires_at": "2000-01-01T00:00:00Z"},
        {"content": "harvests and harvesters", "expires_at": "2000-01-01T00:00:00Z"},
    ]
    ids = myloware.memory.upsert([{"type": "KNOWLEDGE", **doc} for doc in docs])
    whole(myloware)
    assert [ids[0]] == [hit.id for hit in myloware.memory.search_text("harvvest", filter={"metadata.n": 1})]
    assert [ids[1]] == [hit.id for hit in myloware.memory.search_text("harvvest")]
    myloware.memory.delete(ids[1])
    assert [ids[0]] == [hit.id for hit in myloware.memory.search_text("harvvest")]


def test_words_that_nearly_all_documents_have_find_nothing_alone(myloware: Store) -> None:
    """Unless they are the whole query."""
    docs = [{"type": "KNOWLEDGE", "content": f"Order ORD-{n:05d}"} for n in range(500)]
    ids = myloware.memory.upsert([*docs, {"type": "KNOWLEDGE", "content": "late"}], dedupe="content_hash")
    whole(myloware)
    assert [] == myloware.memory.search_text("ORD-0004")
    assert [ids[4]] == [hit.id for hit in myloware.memory.search_text("order ORD-00004")]
    assert [ids[-1]] == [hit.id for hit in myloware.memory.search_text("a late order", match="any")]
    assert 500 == len(myloware.memory.search_text("order ord", k=1000))


def test_excluded_words_do_not_change_the_ranks_of_the_rest(myloware: Store) -> None:
    """What holds the words more often comes first, as it does without them."""
    texts = [
        "a fee among many other things that are told here",
        "fee fee fee",
        "a fee and one fee",
        "fee for a printer",
    ]
    myloware.memory.upsert([{"type": "CONTEXT", "content": text} for text in texts])
    plain = [(hit.content, hit.score) for hit in myloware.memory.search_text("fee")]
    assert "fee fee fee" == plain[0][0]
    kept = [(hit.content, hit.score) for hit in myloware.memory.search_text("fee -printer")]
    assert [hit for hit in plain if "printer" not in hit[0]] == kept
    assert kept == [
        (hit.content, 1 + (hit.score or 0)) for hit in myloware.memory.search_text("fee -printer", match="any")
    ]


@pytest.mark.parametrize("match", ["web", "any", "phrase", "prefix", "part"])
@pytest.mark.parametrize("q", ["fee", "fee -printer", "-printer", "料金", "fee 料金", "料金 -printer", "late fee"])
def test_fewer_hits_are_the_first_of_more(myloware: Store, q: str, match: Match) -> None:
    """Whatever of the words, of unspaced text and of what changed last is looked at for more."""
    texts = [
        "late fee",
        "fee",
        "料金",
        "料金表です",
        "fee 料金",
        "fee fee",
        "late",
        "printer",
        "料金 料金 printer",
        "その料金",
    ]
    for content in [*texts, *reversed(texts)]:
        myloware.memory.upsert([{"type": "CONTEXT", "content": content}])
    every = [hit.id for hit in myloware.memory.search_text(q, k=100, match=match)]
    for k in range(1, len(every)):
        assert every[:k] == [hit.id for hit in myloware.memory.search_text(q, k=k, match=match)]


def test_the_index_answers(myloware: Store) -> None:
    """Among a few thousand rows; what is not needed is not run."""
    myloware.db.execute_sql(
        "INSERT INTO mem_docs (tenant_id, type, content)"
        " SELECT 't', 'CONTEXT', repeat('common word' || n || ' ', 50)"
        " || CASE mod(n, 500) WHEN 0 THEN 'rare' ELSE '' END FROM generate_series(1, 3000) AS n"
    )
    myloware.db.execute_sql("ANALYZE mem_docs")
    seen: list[Any] = []
    myloware.db.query_hooks.append(seen.append)
    assert 3 == len(myloware.memory.search_text("rare", k=3))
    explained = myloware.db.execute_tuned(SETTINGS, f"EXPLAIN ANALYZE {seen[0].sql}", seen[0].params)
    plan = "\n".join(line for (line,) in explained)
    assert "Bitmap Index Scan on mem_docs_search_idx" in plan
    assert "Seq Scan on mem_docs" not in plan
    assert "(never executed)" in plan.split("CTE others")[1].split("CTE found")[0]


@pytest.mark.parametrize(
    "options",
    [
        {"q": "a\x00b"},
        {"q": "\ud800"},
        {"q": None},
        {"q": b"late"},
        {"q": 5},
        {"k": 0},
        {"k": 10_001},
        {"k": True},
        {"match": "all"},
        {"match": None},
        {"match": ["web"]},
        {"k1": -1},
        {"b": 1.1},
        {"b": None},
        {"highlight": "yes"},
        {"filter": {"colour": "red"}},
        {"filter": "type"},
    ],
)
def test_bad_text_searches_are_refused(myloware: Store, options: dict[str, Any]) -> None:
    """One typed error each."""
    with pytest.raises(InvalidInput):
        myloware.memory.search_text(**{"q": "late", **options})


def test_a_search_leaves_no_setting_behind(myloware: Store) -> None:
    """Not on a pooled connection, not in the caller's transaction, and not after an error."""

    def cost() -> Any:
        return myloware.db.execute_sql("SHOW random_page_cost").fetchone()[0]

    myloware.memory.search_text("late")
    assert "4" == cost()
    with myloware.db.atomic():
        myloware.db.execute_sql("SET LOCAL random_page_cost = 3")
        (doc_id,) = myloware.memory.upsert([{"type": "CONTEXT", "content": "late"}])
        assert [doc_id] == [hit.id for hit in myloware.memory.search_text("late")]
        assert "3" == cost()
        myloware.db.execute_sql("SET LOCAL statement_timeout = 1")
        with pytest.raises(Exception, match="statement timeout"):
            myloware.db.execute_tuned({"random_page_cost": 2}, "SELECT pg_sleep(5)")
        myloware.db.execute_sql("SET LOCAL statement_timeout = 0")
        assert "3" == cost()
    assert "4" == cost()
    assert myloware.memory.get(doc_id)
    opened = myloware.db.pool.opened
    with pytest.raises(Exception, match="division_by_zero"):
        myloware.db.execute_tuned({"random_page_cost": 2}, "SELECT 1 / 0")
    assert "4" == cost()
    assert opened == myloware.db.pool.opened
