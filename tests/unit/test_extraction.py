"""What plain rules read off a document."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from myloware_store.demo.extraction import Amount, Extract, completeness, extract
from myloware_store.demo.reading import BUNDLED, read_documents
from myloware_store.enums import WorkItemType


@pytest.mark.parametrize(
    ("text", "amounts"),
    [
        ("Total due GBP 3,687.60", [Amount(3687.60, "GBP")]),
        ("EUR 2.306,22 inkl. MwSt.", [Amount(2306.22, "EUR")]),
        ("Total TTC 1 705,94 \N{EURO SIGN}", [Amount(1705.94, "\N{EURO SIGN}")]),
        ("CHF 1'250.00", [Amount(1250.0, "CHF")]),
        ("a credit of -58.50", [Amount(-58.5)]),
        ("GBP 412,000 of 640,000", [Amount(412000.0, "GBP")]),
        ("12 x 39.00 = 468.00", [Amount(39.0), Amount(468.0)]),
        ("39.00, 39.00 and again 39.00", [Amount(39.0)]),
        ("64 % or 99.16 %, 3.5 hours, 0.032 each, 10.20.4.52, 18.03.2025, 08:40, HP-2025-0142", []),
        ("9" * 400 + ".00", []),
    ],
)
def test_amounts(text: str, amounts: list[Amount]) -> None:
    """Amounts are numbers with a currency beside them or two decimals, whichever sign groups their digits."""
    assert list(extract(text).amounts) == amounts


@pytest.mark.parametrize(
    ("text", "dates"),
    [
        ("issued 2025-03-10", ["2025-03-10"]),
        ("am 18.3.2025 und 01.04.2025", ["2025-03-18", "2025-04-01"]),
        ("on 3 March 2025, or March 5, 2025", ["2025-03-03", "2025-03-05"]),
        ("am 5. März 2025; le 14 août 2025; el 7 de enero de 2025", ["2025-01-07", "2025-03-05", "2025-08-14"]),
        ("2025年3月10日", ["2025-03-10"]),
        ("2025-02-30, 31.04.2025, 3/4/2025, week 11, 12025-01-01", []),
    ],
)
def test_dates(text: str, dates: list[str]) -> None:
    """Dates told in full are found in five languages; days that do not exist and ambiguous forms are not."""
    assert list(extract(text).dates) == dates


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("\n\n# **Invoice** KA-10877\n\ntext", "Invoice** KA-10877"),
        ("=====\n1.2.3\n  Ticket:\t 4408  \n", "Ticket: 4408"),
        ("12 %\n", ""),
        ("x" * 500, "x" * 120),
    ],
)
def test_title(text: str, title: str) -> None:
    """The title is the first line that has a letter, without Markdown's marks around it, 120 characters at most."""
    assert extract(text).title == title


def test_key_words() -> None:
    """Key words are the most frequent words that carry meaning, in any script."""
    assert extract("The printer, the PRINTER and what they have: a Zebra printer. Zebra!").key_words == (
        "printer",
        "zebra",
    )
    assert extract("チャツネの出荷を止め、チャツネの在庫を数えます。").key_words[0] == "チャツネ"


def test_completeness() -> None:
    """The score is the share of what a type of document should say; amounts are asked of invoices only."""
    found = Extract("Title", (), ("2025-03-10",), ("word",))

    assert completeness(WorkItemType.TICKET, found) == (1.0, {"title": 1, "dates": 1, "key_words": 1})
    assert completeness(WorkItemType.INVOICE, found) == (0.75, {"title": 1, "dates": 1, "key_words": 1, "amounts": 0})


def test_bundled_invoices() -> None:
    """Of every bundled invoice the amount to pay is read."""
    totals = {
        document.name: max(amount.value for amount in extract(document.text).amounts)
        for document in read_documents(BUNDLED).documents
        if document.type == WorkItemType.INVOICE
    }

    assert totals == {
        "brightwater-print-bw-7731.txt": 1224.00,
        "facture-moulin-bleu-f2025-067.txt": 1705.94,
        "invoice-harbor-pine-hp-2025-0142.txt": 3687.60,
        "invoice-kestrel-analytics-q2.md": 2046.60,
        "rechnung-kaltenbach-2025-0318.txt": 2306.22,
    }


@given(st.text() | st.text(st.sampled_from("0123456789., -€%EUR\n年月日")))
def test_any_text(text: str) -> None:
    """Whatever the text is, the result is a JSON object of finite numbers and a score from 0 to 1."""
    found = extract(text)

    assert json.loads(json.dumps(found.as_result(), allow_nan=False))["title"] == found.title
    assert all(math.isfinite(amount.value) for amount in found.amounts)
    assert 0 <= completeness(WorkItemType.INVOICE, found)[0] <= 1
