"""Reads text files, guesses what kind of document each is, and cuts long texts into passages.

Nothing here knows the database: the results feed `store.work.submit` and `store.memory.upsert`.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from myloware_store.core.enums import WorkItemType
from myloware_store.core.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = [
    "BUNDLED",
    "MAX_FILE_BYTES",
    "MAX_TOTAL_BYTES",
    "Document",
    "Reading",
    "Skipped",
    "chunk",
    "guess_type",
    "read_documents",
]

BUNDLED = Path(__file__).parent / "documents"
"""The folder of sample documents that comes with the package."""

MAX_FILE_BYTES = 1024 * 1024
MAX_TOTAL_BYTES = 64 * MAX_FILE_BYTES

_SUFFIXES = {".txt", ".text", ".md", ".markdown"}
_KINDS = ".txt, .text, .md or .markdown"
_SIGNS = {
    WorkItemType.TICKET: re.compile(r"\b(?:ticket|issue|bug|incident|error|crash|outage|broken|severity|störung)"),
    WorkItemType.INVOICE: re.compile(r"\b(?:invoice|bill|amount due|subtotal|vat|payment|iban|rechnung|facture)"),
    WorkItemType.STATUS_REPORT: re.compile(r"\b(?:status|progress|week|month|milestone|risk|budget)|週報"),
}
_CONTROL = re.compile("[\x01-\x08\x0e-\x1a\x1c-\x1f\x7f]")
_CUTS = ("\n\n", "\n", ". ", "。", " ")


@attrs.frozen
class Document:
    """A text that was read, with line feeds at its line ends, and its guessed type."""

    path: Path
    name: str
    text: str
    type: WorkItemType


@attrs.frozen
class Skipped:
    """A file or folder without a document, and why."""

    name: str
    reason: str


@attrs.frozen
class Reading:
    """The documents that were read, the files that were skipped, and those in folders that are not text files."""

    documents: tuple[Document, ...]
    skipped: tuple[Skipped, ...]
    ignored: tuple[str, ...] = ()


def read_documents(
    paths: Iterable[Path | str] | Path | str, *, limit: int = MAX_FILE_BYTES, total: int = MAX_TOTAL_BYTES
) -> Reading:
    """Read text and Markdown files, and those in folders, in a stable order.

    Folders are walked in the order of names, without hidden entries and links to folders. charset-normalizer guesses
    the encoding of text that is not UTF-8. A file that cannot be a document does not raise: it is reported with the
    reason, and so is the second of two files with the same text.

    Args:
        paths: Files and folders, or one of them.
        limit: The most bytes of a file, and of its text in UTF-8.
        total: The most bytes of all texts together, in UTF-8; files after that are reported.
    """
    documents: dict[str, Document] = {}
    skipped: list[Skipped] = []
    ignored: list[str] = []
    left = total
    for path, name in _find([Path(paths)] if isinstance(paths, str | Path) else map(Path, paths), ignored):
        try:
            text, reason = _read(path, limit), ""
        except OSError as error:
            text, reason = "", f"cannot be read: {error.strerror}"
        except ValueError as error:
            text, reason = "", str(error)
        size = len(text.encode())
        if text in documents:
            reason = f"the same text as {documents[text].name}"
        elif size > left:
            reason = f"beyond the {total:,} bytes read at a time"
        if reason:
            skipped.append(Skipped(_printable(path), reason))
        else:
            left -= size
            documents[text] = Document(path, _printable(name), text, guess_type(_printable(name), text))
    return Reading(tuple(documents.values()), tuple(skipped), tuple(ignored))


def guess_type(name: str, text: str) -> WorkItemType:
    """Guess the kind of a document from typical words in its name and its first 20,000 characters.

    A word in the first line counts three times, one in the name four times. Without such words it is a status report.

    Args:
        name: File name or title.
        text: The text.
    """
    body = text[:20_000].lower()
    name, title = name.lower().replace("_", " "), body.strip().partition("\n")[0]
    scores = {
        kind: sum(weight * len(set(signs.findall(part))) for weight, part in ((4, name), (2, title), (1, body)))
        for kind, signs in _SIGNS.items()
    }
    best = max(scores, key=lambda kind: scores[kind])
    return best if scores[best] else WorkItemType.STATUS_REPORT


def chunk(text: str, size: int = 1200) -> list[str]:
    """Cut a text into passages, between paragraphs if possible, else lines, else sentences, else words.

    Args:
        text: The text.
        size: The most characters of a passage.

    Returns:
        The passages in their order, none of them blank. Together they contain the whole text except the white space
        at the cuts.

    Raises:
        InvalidInput: `size` is less than 1.
    """
    if size < 1:
        raise InvalidInput(f"size: a passage of {size} characters cannot hold anything")
    passages = []
    rest = text.strip()
    while len(rest) > size:
        end = _cut(rest, size)
        passages.append(rest[:end].rstrip())
        rest = rest[end:].lstrip()
    return [*passages, rest] if rest else passages


def _cut(text: str, size: int) -> int:
    """Return the place to cut a text longer than `size`: past the middle, as late as the best kind of cut allows."""
    for cut in _CUTS:
        kept = len(cut.rstrip())
        found = text.rfind(cut, size // 2, size - kept + len(cut))
        if found >= 0:
            return found + kept
    return size


def _find(paths: Iterable[Path], ignored: list[str]) -> Iterator[tuple[Path, str]]:
    """Find the files at the paths and in folders, each with its name relative to the path.

    Args:
        paths: Files and folders.
        ignored: Gets the files in folders that are not text files.
    """
    for top in paths:
        if not top.is_dir():
            yield top, top.name
            continue
        empty = True
        for folder, folders, files in os.walk(top):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            for path in sorted(Path(folder, name) for name in files if not name.startswith(".")):
                if path.suffix.lower() in _SUFFIXES:
                    empty = False
                    yield path, path.relative_to(top).as_posix()
                else:
                    ignored.append(_printable(path))
        if empty:
            yield top, top.name


def _read(path: Path, limit: int) -> str:
    """Read a text file.

    Raises:
        ValueError: It is not text, or too long; the message says why.
    """
    from charset_normalizer import from_bytes, is_binary

    if path.is_dir():
        raise ValueError(f"no {_KINDS} file in it")
    if path.suffix.lower() not in _SUFFIXES:
        raise ValueError(f"not a {_KINDS} file")
    if path.exists() and not path.is_file():
        raise ValueError("not a regular file")
    if (size := path.stat().st_size) > limit:
        raise ValueError(f"{size:,} bytes are more than the {limit:,} allowed")
    data = path.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        guess = from_bytes(data).best()
        # UTF-16 without a byte order mark fits any data.
        unlikely = guess is None or is_binary(data) or (guess.encoding.startswith("utf_16") and not guess.bom)
        text = "\x00" if unlikely else str(guess)
    if "\x00" in text or len(_CONTROL.findall(text)) * 100 > len(text):
        raise ValueError("looks like binary data")
    if not text.strip():
        raise ValueError("empty")
    if (size := len(text.encode())) > limit:
        raise ValueError(f"{size:,} bytes of UTF-8 are more than the {limit:,} allowed")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _printable(name: Path | str) -> str:
    """Return a name that can be stored and printed: file names may contain bytes that are not UTF-8."""
    return os.fsencode(name).decode(errors="replace")
