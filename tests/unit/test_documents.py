"""Reading other people's documents: which are read, which are skipped and why, and the guessed types."""

import os
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from myloware_store.core.enums import WorkItemType
from myloware_store.core.errors import InvalidInput
from myloware_store.demo.reading import BUNDLED, Reading, chunk, guess_type, read_documents

BUNDLED_TYPES = {
    "barcode-on-pear-chutney-does-not-scan.md": WorkItemType.TICKET,
    "brightwater-print-bw-7731.txt": WorkItemType.INVOICE,
    "cold-chain-programme-march.md": WorkItemType.STATUS_REPORT,
    "facture-moulin-bleu-f2025-067.txt": WorkItemType.INVOICE,
    "invoice-harbor-pine-hp-2025-0142.txt": WorkItemType.INVOICE,
    "invoice-kestrel-analytics-q2.md": WorkItemType.INVOICE,
    "rechnung-kaltenbach-2025-0318.txt": WorkItemType.INVOICE,
    "shuho-osaka-2025-w11.md": WorkItemType.STATUS_REPORT,
    "status-report-erp-migration-week-11.md": WorkItemType.STATUS_REPORT,
    "stoerung-temperaturalarm-halle-2.md": WorkItemType.TICKET,
    "ticket-4408-supplier-paid-twice.txt": WorkItemType.TICKET,
    "ticket-4471-label-printer-offline.md": WorkItemType.TICKET,
    "ticket-4502-login-loop-after-password-change.txt": WorkItemType.TICKET,
    "weekly-update-web-shop-relaunch.txt": WorkItemType.STATUS_REPORT,
}


def names(reading: Reading) -> list[str]:
    """Return the names of the documents that were read."""
    return [document.name for document in reading.documents]


def reasons(reading: Reading) -> dict[str, str]:
    """Return why each file or folder was skipped."""
    return {Path(skipped.name).name: skipped.reason for skipped in reading.skipped}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return an empty folder."""
    made = tmp_path / "papers"
    made.mkdir()
    return made


def test_bundled_documents() -> None:
    """Every bundled document is read, with the right type."""
    reading = read_documents([BUNDLED])

    assert reading.skipped == ()
    assert {document.name: document.type for document in reading.documents} == BUNDLED_TYPES


def test_documentation_is_text() -> None:
    """Text that is full of identifiers and markup is not taken for binary data."""
    docs = Path(__file__).parents[2] / "docs"

    assert () == read_documents(docs).skipped


def test_folders_are_walked_in_order(folder: Path) -> None:
    """A folder's text files come in the order of their names, then those of its folders, with relative names."""
    for name in ("b.txt", "a.MD", "sub/z.markdown", "sub/deeper/c.text", "also/d.txt"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"text of {name}")

    assert names(read_documents(folder)) == ["a.MD", "b.txt", "also/d.txt", "sub/z.markdown", "sub/deeper/c.text"]


def test_other_files_in_a_folder_are_left_alone(folder: Path) -> None:
    """In a folder, files of other kinds and hidden ones are neither read nor reported."""
    (folder / "letter.txt").write_text("letter")
    (folder / "photo.jpg").write_bytes(b"\xff\xd8")
    (folder / ".hidden.txt").write_text("hidden")
    (folder / ".git").mkdir()
    (folder / ".git" / "notes.txt").write_text("internal")

    reading = read_documents([folder])

    assert names(reading) == ["letter.txt"]
    assert reading.skipped == ()


def test_what_is_named_is_always_answered(folder: Path) -> None:
    """A path that was named and gives no document is reported with the reason."""
    (folder / "photo.jpg").write_bytes(b"\xff\xd8")
    (folder / "nothing").mkdir()

    reading = read_documents([folder / "photo.jpg", folder / "nothing", folder / "missing.txt"])

    assert names(reading) == []
    assert reasons(reading) == {
        "photo.jpg": "not a .txt, .text, .md or .markdown file",
        "nothing": "no .txt, .text, .md or .markdown file in it",
        "missing.txt": "cannot be read: No such file or directory",
    }


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_encodings(folder: Path, encoding: str) -> None:
    """Text in any form of Unicode is read as it is; its line ends become one."""
    (folder / "letter.txt").write_bytes("Grüße €\r\nzwei\rdrei\n".encode(encoding))

    (document,) = read_documents([folder]).documents

    assert "Grüße €\nzwei\ndrei\n" == document.text


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b" \n\t\r\n", "empty"),
        (b"\xef\xbb\xbf", "empty"),
        (b"NUL \x00 inside", "looks like binary data"),
        (bytes(range(1, 101)), "looks like binary data"),
        (b"%PDF\x01\x02\x03\xff\xfe stream", "looks like binary data"),
        (b"\xff\xfe\x00", "looks like binary data"),
        (b"x" * 101, "101 bytes are more than the 100 allowed"),
        (("\u20ac" * 40).encode("utf-16"), "120 bytes of UTF-8 are more than the 100 allowed"),
    ],
)
def test_unusable_files(folder: Path, data: bytes, reason: str) -> None:
    """A file that cannot be a document is reported with the reason."""
    (folder / "letter.txt").write_bytes(data)

    reading = read_documents([folder], limit=100)

    assert reasons(reading) == {"letter.txt": reason}


def test_pipes_are_not_waited_for(folder: Path) -> None:
    """A named pipe is reported, not opened: nobody may ever write to it."""
    os.mkfifo(folder / "pipe.txt")
    readings: list[Reading] = []
    thread = threading.Thread(target=lambda: readings.append(read_documents([folder])), daemon=True)
    thread.start()
    thread.join(60)

    assert [reasons(reading) for reading in readings] == [{"pipe.txt": "not a regular file"}]


def test_links_that_lead_in_circles(folder: Path) -> None:
    """Links to folders are left out, so that a circle of them ends; a link to nothing is reported."""
    (folder / "sub").mkdir()
    (folder / "sub" / "letter.txt").write_text("letter")
    (folder / "sub" / "back").symlink_to(folder)
    (folder / "circle.txt").symlink_to(folder / "circle.txt")

    reading = read_documents([folder])

    assert names(reading) == ["sub/letter.txt"]
    assert list(reasons(reading)) == ["circle.txt"]


def test_more_than_is_read_at_a_time(folder: Path) -> None:
    """Files beyond the total are reported; a smaller one after them may still have room."""
    for name, text in (("a.txt", "x" * 60), ("b.txt", "\u00fc" * 30), ("c.txt", "y" * 40)):
        (folder / name).write_text(text, encoding="utf-8")

    reading = read_documents([folder], total=100)

    assert names(reading) == ["a.txt", "c.txt"]
    assert reasons(reading) == {"b.txt": "beyond the 100 bytes read at a time"}


def test_same_text_twice(folder: Path) -> None:
    """The second of two files with the same text is reported, with the first one's name."""
    (folder / "a.txt").write_text("the same")
    (folder / "b.txt").write_text("the same")

    reading = read_documents([folder])

    assert names(reading) == ["a.txt"]
    assert reasons(reading) == {"b.txt": "the same text as a.txt"}


def test_names_that_are_not_unicode(folder: Path) -> None:
    """A file name that is not UTF-8 gives a name that can be stored and printed."""
    Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.txt")).write_text("menu")

    (name,) = names(read_documents([folder]))

    assert name == "caf\ufffd.txt"


@pytest.mark.parametrize(
    ("name", "text", "kind"),
    [
        ("notes.txt", "Hello there", WorkItemType.STATUS_REPORT),
        ("scan-0007.txt", "Subtotal 90.00\nVAT 18.00\nAmount due 108.00 by bank transfer", WorkItemType.INVOICE),
        ("scan-0008.txt", "The app crashes. Steps to reproduce: open it. Severity: high", WorkItemType.TICKET),
        ("scan-0009.txt", "Milestone reached, next steps and risks below, budget on track", WorkItemType.STATUS_REPORT),
        ("INVOICE_77.TXT", "See the attachment, there was an issue", WorkItemType.INVOICE),
        ("tickets/77.txt", "See the attachment", WorkItemType.TICKET),
        ("x.txt", "Störung gemeldet, Ursache unbekannt", WorkItemType.TICKET),
        ("x.txt", "", WorkItemType.STATUS_REPORT),
    ],
)
def test_guess_type(name: str, text: str, kind: WorkItemType) -> None:
    """The words of the text, its first line and its name decide the type; without a sign it is a status report."""
    assert guess_type(name, text) == kind


@given(st.text(), st.text())
def test_any_text_has_a_type(name: str, text: str) -> None:
    """Every text is given one of the types."""
    assert guess_type(name, text) in WorkItemType


def test_chunk_prefers_paragraphs() -> None:
    """A text is cut between paragraphs if there are some past the middle, else lines, sentences and words."""
    assert chunk("one two\n\nthree four\n\nfive", 22) == ["one two\n\nthree four", "five"]
    assert chunk("one two\nthree four\nfive", 20) == ["one two\nthree four", "five"]
    assert chunk("One two. Three four. Five six.", 25) == ["One two. Three four.", "Five six."]
    assert chunk("一つ目の文です。二つ目の文です。三つ目。", 17) == ["一つ目の文です。二つ目の文です。", "三つ目。"]
    assert chunk("one two three four", 10) == ["one two", "three four"]
    assert chunk("abcdefghij", 4) == ["abcd", "efgh", "ij"]


def test_chunk_of_little() -> None:
    """A short text is one passage and a blank one is none."""
    assert chunk("  short \n") == ["short"]
    assert chunk(" \n ") == []


@given(st.text(st.sampled_from("ab .\n。é")), st.integers(1, 12))
def test_chunk_loses_nothing(text: str, size: int) -> None:
    """No passage is blank or longer than allowed, and together they hold all but white space."""
    passages = chunk(text, size)

    assert all(passage.strip() == passage and 0 < len(passage) <= size for passage in passages)
    assert "".join(text.split()) == "".join("".join(passages).split())


def test_chunk_size_is_checked() -> None:
    """A size that holds nothing is refused by a typed error."""
    with pytest.raises(InvalidInput, match="size"):
        chunk("text", 0)
