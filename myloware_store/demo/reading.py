"""Reads text and Markdown files, tells invoices, tickets and status reports apart, and cuts long texts into passages.

Nothing here knows the database: the results feed `store.work.submit` and `store.memory.upsert`.
"""

from __future__ import annotations

import codecs
import os
import re
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from myloware_store.embedding import fold
from myloware_store.enums import WorkItemType
from myloware_store.errors import InvalidInput

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


@attrs.frozen
class Document:
    """A text that was read, its lines ended by line feeds, with the type that it looks like."""

    path: Path
    name: str
    text: str
    type: WorkItemType


@attrs.frozen
class Skipped:
    """A file or folder that gave no document, and why."""

    name: str
    reason: str


@attrs.frozen
class Reading:
    """What became of the files that were found: each is among the documents or among the skipped."""

    documents: tuple[Document, ...]
    skipped: tuple[Skipped, ...]


def read_documents(
    paths: Iterable[Path | str] | Path | str, *, limit: int = MAX_FILE_BYTES, total: int = MAX_TOTAL_BYTES
) -> Reading:
    """Read text and Markdown files, and those in folders, in a stable order.

    Folders are walked by name, links included, hidden entries not. Text may be UTF-8, UTF-16 or UTF-32 with a byte
    order mark, or else Windows-1252 or Latin-1. A file that cannot be a document never raises: it is reported with the
    reason, and so is the second of two files with the same text.

    Args:
        paths: Files and folders, or one of them.
        limit: Most bytes that a file, and its text in UTF-8, may have.
        total: Most bytes of UTF-8 that all texts together may have; what comes after them is reported.
    """
    documents: dict[str, Document] = {}
    skipped: list[Skipped] = []
    left = total
    for path, name, fault in _find([Path(paths)] if isinstance(paths, str | Path) else map(Path, paths)):
        text, reason = ("", fault) if fault else _read(path, limit)
        if text in documents:
            reason = f"the same text as {documents[text].name}"
        elif (size := len(text.encode())) > left:
            reason = f"beyond the {total:,} bytes read at a time"
        if reason:
            skipped.append(Skipped(_printable(str(path)), reason))
        else:
            left -= size
            documents[text] = Document(path, name, text, guess_type(name, text))
    return Reading(tuple(documents.values()), tuple(skipped))


def guess_type(name: str, text: str) -> WorkItemType:
    """Guess what kind of document a text is.

    Each type has a list of telling word beginnings, in English, German, French, Spanish and Japanese. One counts 1 when
    it stands anywhere in the text, 2 more in the first line that is not blank, and 4 more in the name; how often it
    stands there does not matter. The highest sum wins, and a text with no sign at all is a status report. Of a long
    text only the first 20,000 characters are read.

    Args:
        name: File name or title.
        text: The text.
    """
    folded = fold(text[:_TELLING])
    title = folded.lstrip().partition("\n")[0]
    scores = {
        kind: len(set(signs.findall(folded)))
        + 2 * len(set(signs.findall(title)))
        + 4 * len(set(signs.findall(fold(name))))
        for kind, signs in _SIGNS.items()
    }
    return max(scores, key=lambda kind: scores[kind])


def chunk(text: str, size: int = 1200) -> list[str]:
    """Cut a text into passages, between paragraphs if possible, else lines, else sentences, else words.

    Args:
        text: The text.
        size: Most characters that a passage may have.

    Returns:
        The passages in their order, none of them blank. Together they hold every character of the text but the white
        space they were cut at.

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


_TELLING = 20_000
_SUFFIXES = {".txt", ".text", ".md", ".markdown"}
_KINDS = ".txt, .text, .md or .markdown"
_BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",  # before UTF-16, whose mark it begins with
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_CONTROL = re.compile("[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f-\x84\x86-\x9f]")
_MOST_CONTROL = 0.01


def _signs(words: str, unspaced: str) -> re.Pattern[str]:
    """Compile word beginnings, and words of a script without spaces, which may stand anywhere."""
    beginnings = "|".join(word.replace("_", r"[\s_-]+") for word in fold(words).split())
    return re.compile(rf"(?<![^\W_])(?:{beginnings})|{'|'.join(fold(unspaced).split())}")


_SIGNS = {
    WorkItemType.STATUS_REPORT: _signs(
        """
        status_report status_update progress weekly monthly quarterly this_week next_week next_month next_step last_week
        milestone highlight accomplish completed_this in_progress on_track behind_the_plan budget forecast outlook risk
        blocker sprint kpi roadmap go-live steering
        statusbericht wochenbericht fortschritt meilenstein zeitplan risik ausblick nächste_schritte
        rapport avancement jalon prochaines_étapes calendrier risque informe avance hito próximos_pasos riesgo
        """,
        "週報 月報 進捗 課題 来週 今週 目標 予定",
    ),
    WorkItemType.INVOICE: _signs(
        """
        invoice bill_to billed_to billing amount_due total_due payment_due due_date payment_terms net_30 subtotal vat
        sales_tax unit_price qty quantity remittance iban bank_transfer late_fee purchase_order credit_note receipt
        rechnung mwst ust zahlbar nettobetrag gesamtbetrag einzelpreis skonto mahngebühr mahngebuehr
        facture tva montant échéance prix_unitaire règlement virement factura importe iva vencimiento
        """,
        "請求書 合計 消費税 支払期限 振込",
    ),
    WorkItemType.TICKET: _signs(
        """
        ticket issue bug incident error fail crash outage offline broken reproduce expected: actual: severity priority
        reported_by reporter requester assignee assigned_to opened workaround root_cause resolution resolved help_desk
        complain cannot
        störung stoerung fehler gemeldet ursache dringend behoben gelöst
        demande_d incident_n panne erreur signalé urgent incidencia avería fallo
        """,
        "障害 不具合 エラー 問い合わせ 再現",
    ),
}
"""Word beginnings; `_` stands for spaces and hyphens. At equal scores the first type wins."""

_CUTS = (
    re.compile(r"\n[^\S\n]*\n"),
    re.compile(r"\n"),
    re.compile("(?<=[.!?;:])\\s|(?<=[\u3002\uff01\uff1f\uff1b])"),  # the last four are the East Asian . ! ? ;
    re.compile(r"\s"),
)


def _cut(text: str, size: int) -> int:
    """Find where to cut a text that is longer than `size`: past the middle, as late as the best kind of cut allows."""
    for cuts in _CUTS:
        ends = [cut.start() for cut in cuts.finditer(text, 0, size + 1) if size // 2 < cut.start() <= size]
        if ends:
            return ends[-1]
    return size


def _find(paths: Iterable[Path]) -> Iterator[tuple[Path, str, str]]:
    """Give every file once, by whatever path it is reached first: the path, a printable name, and what is wrong."""
    seen: set[str] = set()
    for path in paths:
        if "\x00" in str(path):
            yield path, "", "no path holds a NUL character"
        elif _is_folder(path):
            found = list(_walk(path, seen))
            yield from found or [(path, "", f"no {_KINDS} file in it that was not read already")]
        elif _is_new(path, seen):
            yield path, _printable(path.name), "" if path.suffix.lower() in _SUFFIXES else f"not a {_KINDS} file"


def _walk(top: Path, seen: set[str]) -> Iterator[tuple[Path, str, str]]:
    """Give the text files in a folder, then those in its folders."""
    folders = [top]
    while folders:
        folder = folders.pop()
        if not _is_new(folder, seen):
            continue
        try:
            entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
        except OSError as error:
            yield folder, "", f"cannot be listed: {error.strerror}"
            continue
        inner = [entry for entry in entries if _is_folder(entry)]
        folders += reversed(inner)
        for entry in entries:
            if entry not in inner and entry.suffix.lower() in _SUFFIXES and _is_new(entry, seen):
                yield entry, _printable(entry.relative_to(top).as_posix()), ""


def _is_folder(path: Path) -> bool:
    """Tell whether a path is a folder; what cannot even be asked is none."""
    try:
        return stat.S_ISDIR(path.stat().st_mode)
    except OSError:
        return False


def _is_new(path: Path, seen: set[str]) -> bool:
    """Tell whether a file or folder is met for the first time, and remember it."""
    real = os.path.realpath(path)
    new = real not in seen
    seen.add(real)
    return new


def _printable(name: str) -> str:
    """Give a name that can be stored and printed: file names may hold bytes that are not UTF-8."""
    return os.fsencode(name).decode(errors="replace")


def _read(path: Path, limit: int) -> tuple[str, str]:
    """Read a text file: the text, or else the reason why there is none."""
    try:
        status = path.stat()
        fault = "" if stat.S_ISREG(status.st_mode) else "not a regular file"
        if status.st_size > limit:
            fault = f"{status.st_size:,} bytes are more than the {limit:,} allowed"
        text = "" if fault else _decode(path.read_bytes())
    except OSError as error:
        return "", f"cannot be read: {error.strerror}"
    except UnicodeDecodeError as error:
        return "", f"not the {error.encoding} that its byte order mark promises"
    fault = fault or _fault(text, limit)
    return ("", fault) if fault else (text.replace("\r\n", "\n").replace("\r", "\n"), "")


def _fault(text: str, limit: int) -> str:
    """Tell why a text cannot be a document; empty if it can."""
    if not text.strip():
        return "empty"
    if "\x00" in text or len(_CONTROL.findall(text)) > _MOST_CONTROL * len(text):
        return "looks like binary data"
    size = len(text.encode())
    return f"{size:,} bytes of UTF-8 are more than the {limit:,} allowed" if size > limit else ""


def _decode(data: bytes) -> str:
    """Decode by the byte order mark, else as UTF-8, else as what older Windows and Unix programs wrote."""
    for mark, encoding in _BYTE_ORDER_MARKS.items():
        if data.startswith(mark):
            return data.decode(encoding)
    for encoding in ("utf-8", "cp1252"):
        try:
            return data.decode(encoding)
        except UnicodeDecodeError:
            continue
    return data.decode("latin-1")
