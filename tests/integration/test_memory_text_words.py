"""What counts as the same word: whatever the locale, the script, the punctuation, the accents and the spelling."""

from __future__ import annotations

import unicodedata
import uuid
from contextlib import closing
from typing import TYPE_CHECKING, Any

import psycopg2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from myloware_store import Store
from myloware_store.schema import read_sql
from tests.conftest import ROUNDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from uuid import UUID

JOINING = "\u00ad\u034f\u061c\u180e\u200c\u200d\u200e\u200f\ufeff\u202a\u202b\u202c\u202d\u202e" + "".join(
    map(chr, range(0x2060, 0x2070))
)
"""What is not seen, and does not end a word."""


def stored(myloware: Store, content: str) -> UUID:
    """Store a document."""
    return myloware.memory.upsert([{"type": "CONTEXT", "content": content}])[0]


def missed(myloware: Store, doc: UUID, *queries: str) -> list[str]:
    """Return the queries that do not find a document."""
    return [q for q in queries if doc not in [hit.id for hit in myloware.memory.search_text(q, match="phrase")]]


@pytest.fixture(scope="module", params=["C", "C.UTF-8"])
def searched(request: pytest.FixtureRequest, myloware_server: Any) -> Iterator[Callable[[str, list[str]], Any]]:
    """Give a function that evaluates an expression over each of some texts, in a database of a locale."""
    name = f"ctype_{uuid.uuid4().hex[:12]}"
    with closing(psycopg2.connect(**myloware_server.connect_kwargs("postgres"))) as connection:
        connection.autocommit = True
        with connection.cursor() as run:
            run.execute(f"CREATE DATABASE {name} TEMPLATE template0 LC_CTYPE '{request.param}' STRATEGY file_copy")
            with closing(psycopg2.connect(**myloware_server.connect_kwargs(name))) as inside:
                cursor = inside.cursor()
                cursor.execute(read_sql("content"))

                def evaluate(expression: str, texts: list[str]) -> list[Any]:
                    cursor.execute(f"SELECT {expression} FROM unnest(%s::text[]) AS text", (texts,))
                    return [value for (value,) in cursor.fetchall()]

                yield evaluate
            run.execute(f"DROP DATABASE {name} WITH (FORCE)")


def test_no_punctuation_sticks_to_words(searched: Callable[[str, list[str]], Any]) -> None:
    """None of Unicode's, in any locale."""
    marks = [
        character
        for character in map(chr, range(0x20, 0x10000))
        if unicodedata.category(character)[0] in "PSZ"
        and character not in JOINING
        # What stands for letters and digits, such as the sign for kilograms, is read as those.
        and not any(part.isalnum() for part in unicodedata.normalize("NFKD", character))
    ]
    texts = [f"{mark}mahnung{mark}zebra{mark} 12" for mark in marks]
    found = searched("content_search(text) @@ 'mahnung & zebra'", texts)
    assert [] == [f"U+{ord(mark):04X}" for mark, both in zip(marks, found, strict=True) if not both]


def test_letters_stay_together(searched: Callable[[str, list[str]], Any]) -> None:
    """Of every script with blanks between words; and what nobody sees is not there."""
    letters = [
        chr(n)
        for n in range(0x80, 0x2000)
        if unicodedata.category(chr(n))[0] == "L"
        and unicodedata.normalize("NFKD", chr(n))[0].isalpha()
        and "\u00b7" not in unicodedata.normalize("NFKD", chr(n))
    ]
    spaced = [one for one in letters if not searched_as_pairs(one)]
    texts = [f"mah{one}nung" for one in [*spaced, *JOINING]]
    lengths = searched("cardinality(regexp_split_to_array(btrim((content_words(text))[1]), ' +'))", texts)
    assert [] == [f"U+{ord(text[3]):04X}" for text, n in zip(texts, lengths, strict=True) if n != 1]
    assert len(JOINING) * [["mahnung", ""]] == searched("content_words(text)", [f"mah{one}nung" for one in JOINING])


def searched_as_pairs(character: str) -> bool:
    """Return whether a character is of a script without blanks between words."""
    return any(
        low <= character <= high for low, high in [("\u0e00", "\u0eff"), ("\u1000", "\u109f"), ("\u1780", "\u17ff")]
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("MÜLLER Müller mu\u0308ller", "muller muller muller"),
        ("Straße STRASSE", "strasse strasse"),
        ("ДОГОВОР Ёлка", "договор елка"),
        ("ΛΌΓΟΣ λόγος", "λογοσ λογοσ"),
        ("ﬁne ＨＰ－２０２５ ½", "fine hp 2025 1 2"),
        ("soft\u00adhyphen", "softhyphen"),
        ("don’t don't", "don t don't"),
        ("請求書。", "請求 求書 書"),
        ("ﾃﾞｰﾀ データ", "デー ータ タ デー ータ タ"),
        ("송장의", "송장 장의 의"),
    ],
)
def test_words_are_the_same_in_every_locale(searched: Callable[[str, list[str]], Any], text: str, words: str) -> None:
    """In small letters, without accents, in full-width or composed of parts."""
    (both,) = searched("content_words(text)", [text])
    assert words == " ".join(both[0].split())


@pytest.mark.parametrize(
    ("content", "queries"),
    [
        ("„Mahnung“ «facture» “refund”", ["Mahnung", "facture", "refund"]),
        ("The customer’s share: five percent—net", ["customer", "customer's", "five percent", "percent", "net"]),
        ("€120 or 120\u00a0EUR • •Item ¿Dónde?", ["120", "120 EUR", "EUR", "item", "donde", "Dónde"]),
        ("請求書。送付", ["請求書", "送付", "請", "書", "求書"]),
        ("Müller & Söhne", ["Mu\u0308ller", "muller", "MÜLLER", "Sohne"]),
        ("Le café crème", ["cafe creme", "café", "CAFÉ CRÈME"]),
        ("Go 部署 deployment", ["部署 deployment", "go 部署", "deployments"]),
        ("송장의 지급 기한은 삼십일입니다", ["기한", "지급 기한", "송장"]),
        ("กำหนดชำระเงินของใบแจ้งหนี้", ["ชำระเงิน"]),
        ("mail bob@example.com, see http://example.com/a_b", ["bob", "example.com", "bob@example.com", "a_b"]),
        ("List<String> x; a<b & c", ["string", "list<string>"]),
    ],
)
def test_words_are_found_as_they_are_written(myloware: Store, content: str, queries: list[str]) -> None:
    """By each word, alone and in a row."""
    assert [] == missed(myloware, stored(myloware, content), *queries)


@pytest.mark.parametrize(
    ("content", "queries"),
    [
        (
            "Invoice HP-2025-0142 and KA-33/B, order INV/2025/17",
            ["0142", "HP2025", "33/B", "INV", "2025/17", "hp 2025 0142", "HP-2025-0142", "hp_2025_0142", "HP20250142"],
        ),
        ("Invoice HP-2025-0142 and KA-33/B, order INV/2025/17", ["ka33b", "KA 33 B", "KA33", "inv2025", "inv-2025-17"]),
        ("hp2025", ["HP-2025", "hp 2025", "2025", "HP2025"]),
        ("12,500.00 EUR on 2025-01-17", ["12500.00", "20250117", "2025-01-17", "17"]),
        ("Version 3.14 of lib-1.2.3rc4", ["3.14", "lib-1.2", "1.2.3rc4", "lib 1.2.3rc4", "lib123rc4"]),
    ],
)
def test_identifiers_are_found_however_they_are_typed(myloware: Store, content: str, queries: list[str]) -> None:
    """Whole, in parts, and in one piece; also among all the words of a query."""
    doc = stored(myloware, content)
    assert [] == missed(myloware, doc, *queries)
    assert all((myloware.memory.search_text(q)[0].score or 0) > 1 for q in queries)


_WORDS = ["invoice", "Müller", "請求書", "договор", "송장의", "HP-2025-0142", "naïve", "ﬁsh", "ชำระเงิน"]


@settings(max_examples=60 * ROUNDS, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    words=st.lists(
        st.sampled_from(_WORDS) | st.from_regex(r"[A-Z]{2}[-/_.]?[1-9][0-9]{2,5}[-/]?[A-Z]?", fullmatch=True),
        min_size=1,
        max_size=6,
    ),
    around=st.lists(
        st.sampled_from(["“%s”", "«%s»", "(%s)", "%s。", "—%s—", "%s’", "¡%s!", "\u00a0%s\u00a0", "%s,", "<%s>"]),
        min_size=6,
        max_size=6,
    ),
    form=st.sampled_from(["NFC", "NFD", "NFKC", "NFKD"]),
)
def test_what_is_stored_is_found_by_each_of_its_words(
    myloware: Store, words: list[str], around: list[str], form: Any
) -> None:
    """Whatever stands around it, and in whatever form it is typed."""
    content = " ".join(mark % word for mark, word in zip(around, words, strict=False))
    doc = stored(myloware, content)
    typed = [unicodedata.normalize(form, word) for word in words]
    bare = [word.replace("-", "").replace("/", "") for word in words if word.isascii()]
    assert [] == missed(myloware, doc, *typed, *bare, *map(str.upper, bare))
    myloware.memory.delete(doc)


LANGUAGES = {
    "de": (
        [
            "Die Mahngebühr beträgt fünf Prozent.",
            "Der Drucker im zweiten Stock brennt.",
            "Die Rechnung über die Heizung.",
        ],
        {"Mahngebühr": 0, "DRUCKER": 1, "wie hoch ist die Mahngebühr?": 0, "fuenf prozent": 0, "heizung rechnung": 2},
    ),
    "fr": (
        [
            "Les frais de retard s’élèvent à 5 %.",
            "L’imprimante du deuxième étage brûle.",
            "La facture d’électricité de février.",
        ],
        {"frais de retard": 0, "imprimante": 1, "deuxieme etage": 1, "facture fevrier": 2, "électricité": 2},
    ),
    "es": (
        [
            "El recargo por demora es del cinco por ciento.",
            "¡La impresora está ardiendo!",
            "¿Dónde está la factura del año?",
        ],
        {"recargo": 0, "impresora": 1, "donde factura": 2, "factura año": 2, "está ardiendo": 1},
    ),
    "ru": (
        [
            "Пеня за просрочку составляет пять процентов.",
            "Принтер на втором этаже горит.",
            "Счёт за отопление в январе.",
        ],
        {"пеня": 0, "ПРИНТЕР": 1, "счет за отопление": 2, "просрочку процентов": 0},
    ),
    "el": (["Η χρέωση καθυστέρησης είναι πέντε τοις εκατό.", "Ο εκτυπωτής καίγεται."], {"χρεωση": 0, "ΕΚΤΥΠΩΤΉΣ": 1}),
    "ar": (["رسوم التأخير خمسة في المئة،", "الطابعة تحترق؟"], {"رسوم": 0, "الطابعة": 1, "التأخير": 0}),
    "he": (["דמי פיגור של חמישה אחוזים.", "המדפסת בוערת!"], {"פיגור": 0, "המדפסת": 1}),
    "hi": (["विलंब शुल्क पाँच प्रतिशत है।", "दूसरी मंज़िल का प्रिंटर जल रहा है।"], {"शुल्क": 0, "प्रिंटर": 1}),
    "ja": (
        [
            "延滞料は請求額の五パーセントです。",
            "二階のプリンターが燃えています。",
            "暖房費の請求書は一月に届きました。",
        ],
        {"延滞料": 0, "プリンター": 1, "ﾌﾟﾘﾝﾀｰ": 1, "暖房費の請求書": 2, "延滞料はいくらですか": 0},
    ),
    "zh": (
        ["滞纳金为发票金额的百分之五。", "二楼的打印机着火了。", "一月份的暖气费发票。"],
        {"滞纳金": 0, "打印机": 1, "暖气费": 2, "滞纳金是多少": 0},
    ),
    "ko": (
        ["연체료는 송장 금액의 오 퍼센트입니다.", "이층 프린터에 불이 났습니다.", "일월 난방비 송장입니다."],
        {"연체료": 0, "프린터": 1, "난방비": 2, "연체료가 얼마입니까": 0},
    ),
    "th": (["ค่าปรับล่าช้าคือร้อยละห้า", "เครื่องพิมพ์ชั้นสองไฟไหม้"], {"ค่าปรับ": 0, "เครื่องพิมพ์": 1}),
}


@pytest.mark.parametrize("language", LANGUAGES)
def test_languages(myloware: Store, language: str) -> None:
    """The document that a question is about comes first, among those of all languages."""
    ids = {
        name: myloware.memory.upsert([{"type": "KNOWLEDGE", "content": content} for content in contents])
        for name, (contents, _) in LANGUAGES.items()
    }
    for q, n in LANGUAGES[language][1].items():
        assert (q, ids[language][n]) == (q, myloware.memory.search_text(q, k=3)[0].id)
