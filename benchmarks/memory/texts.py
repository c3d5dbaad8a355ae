"""Real texts that pip brings along, and queries whose answers are known, the same at every run for given versions.

English: the docstrings of the standard library and of the packages in `SOURCES`. A docstring's first paragraph is its
title, and what follows it, up to 2,000 characters, is the document. Other languages: the translated messages of the
packages in `CATALOGUES`, by the same rule, the first sentence being the title where others follow.

Documents of one title or beginning count once. They stand in the order of their hashes, so that the first thousand are
drawn evenly from all packages, whatever the size asked for.
"""

from __future__ import annotations

import ast
import gettext
import hashlib
import random
import re
import sysconfig
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path
from typing import NamedTuple

SOURCES = ("numpy", "scipy", "scikit-learn", "networkx", "sympy")
CATALOGUES = ("weblate", "django")
LANGUAGES = ("de", "es", "fr", "ja", "ko", "ru", "zh_Hans")
DENSE = ("ja", "ko", "zh_Hans")
"""Those that say more in a character."""

_MOST, _LEAST = 2_000, 80
_LONGEST_TITLE = 30  # words
_LEAST_DENSE = 30
_STOP = {"and", "are", "for", "from", "into", "that", "the", "this", "which", "with"}
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|(?<=。)\s*")
_SENTENCE = re.compile(r"[^\W\d_][^\n=]*(\n\S[^\n=]*){,3}[.!?。]?$")  # no list, no code
_PROSE = re.compile(r"[A-Z][^\n]{40,}")  # no list of parameters, no example
_IDENTIFIER = re.compile(r"(?<![\w.])[A-Za-z0-9]+(?:[-_./][A-Za-z0-9]+)+(?!\w)")


class Query(NamedTuple):
    """What is asked, its kind, and the number of the document that answers it."""

    kind: str
    text: str
    answer: int


@dataclass(frozen=True)
class Texts:
    """Documents and queries.

    Attributes:
        documents: Their texts.
        queries: The queries.
    """

    documents: list[str]
    queries: list[Query]


def english(count: int, asked: int) -> Texts:
    """Return docstrings, and queries of seven kinds, `asked` of each at most."""
    found = _in_order(_docstrings())[:count]
    documents = [body for _, body in found]
    words = Counter(word for body in documents for word in set(_IDENTIFIER.findall(body)))
    makers: dict[str, Callable[[str, str, random.Random], str | None]] = {
        "title": lambda title, _, __: title,
        "sentence": lambda _, body, __: _quotation(body, 40, 300),
        "question": lambda title, _, __: _question(title),
        "typo": lambda title, _, chance: _mistyped(title, chance),
        "identifier": lambda _, body, chance: _identifier(body, words, chance),
        "identifier split": lambda _, body, chance: _split(_identifier(body, words, chance), chance),
        "identifier joined": lambda _, body, chance: _joined(_identifier(body, words, chance)),
    }
    queries = []
    for kind, make in makers.items():
        made = ((number, make(title, body, random.Random(number))) for number, (title, body) in enumerate(found))
        queries += [Query(kind, text, number) for number, text in _known(made, kind, documents, asked)]
    return Texts(documents, queries)


def languages(count: int, asked: int) -> Texts:
    """Return messages, `count` of each language at most, and titles and sentences, `asked` of each at most."""
    documents: list[str] = []
    queries: list[Query] = []
    for language in LANGUAGES:
        found, begin = _in_order(_messages(language))[:count], len(documents)
        documents += [body for _, body in found]
        bounds = (12, 150) if language in DENSE else (40, 300)
        titles = ((begin + number, title or None) for number, (title, _) in enumerate(found))
        quoted = ((begin + number, _quotation(body, *bounds)) for number, (_, body) in enumerate(found))
        for kind, made in (("title", titles), ("sentence", quoted)):
            known = _known(made, kind, documents, asked)
            queries += [Query(f"{kind} {language}", text, number) for number, text in known]
    return Texts(documents, queries)


def _known(
    made: Iterable[tuple[int, str | None]], kind: str, documents: list[str], asked: int
) -> Iterator[tuple[int, str]]:
    """Give the first queries; a quotation only if no other document holds it."""
    for number, text in made:
        if not text or (kind == "sentence" and sum(text in document for document in documents) > 1):
            continue
        yield number, " ".join(text.split())
        asked -= 1
        if not asked:
            return


def _in_order(found: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return titles and texts in the order of their hashes, each title and each beginning once."""
    ordered = sorted(found, key=lambda one: hashlib.sha256("\n".join(one).encode()).digest())
    seen: set[str] = set()
    kept = []
    for title, body in ordered:
        marks = {title, body[:120]} - {""}
        if not marks & seen:
            kept.append((title, body))
        seen |= marks
    return kept


def _docstrings() -> Iterator[tuple[str, str]]:
    """Give title and rest of the docstrings, read without importing anything."""
    for path in _modules():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # escapes in what others wrote
            try:
                tree = ast.parse(path.read_bytes())
            except (SyntaxError, ValueError):  # a template, or a file that tests the parser
                continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                title, _, body = (ast.get_docstring(node) or "").partition("\n\n")
                body = body.strip()[:_MOST]
                if len(body) >= _LEAST and _PROSE.match(body) and 2 < len(title.split()) <= _LONGEST_TITLE:
                    yield " ".join(title.split()), body


def _modules() -> Iterator[Path]:
    standard = Path(sysconfig.get_paths()["stdlib"])
    for path in standard.rglob("*.py"):
        if not {"site-packages", "test", "tests", "idlelib", "lib2to3"} & set(path.relative_to(standard).parts):
            yield path
    for name in SOURCES:
        for file in distribution(name).files or ():
            if file.suffix == ".py" and "tests" not in file.parts:
                yield Path(str(file.locate()))


def _messages(language: str) -> Iterator[tuple[str, str]]:
    """Give title, if there is one, and rest of the translated messages."""
    least = _LEAST_DENSE if language in DENSE else _LEAST
    for name in CATALOGUES:
        for file in distribution(name).files or ():
            if file.suffix == ".mo" and language in file.parts:
                with Path(str(file.locate())).open("rb") as stream:
                    catalogue = gettext.GNUTranslations(stream)
                translated: dict[object, str] = vars(catalogue)["_catalog"]
                for original, message in translated.items():
                    text = " ".join(re.sub(r"<[^>]+>", "", message).split())
                    if original in {"", text} or len(text) < least:
                        continue
                    title, *rest = _SENTENCE_END.split(text, maxsplit=1)
                    yield (title, rest[0]) if rest and len(rest[0]) >= least / 2 else ("", text)


def _quotation(body: str, least: int, most: int) -> str | None:
    """Return the sentence in the middle."""
    sentences = [one for one in _SENTENCE_END.split(body) if least <= len(one) <= most and _SENTENCE.match(one)]
    return sentences[len(sentences) // 2] if sentences else None


def _question(title: str) -> str | None:
    """Return a question with the words of a title that carry its meaning."""
    words = [word for word in re.findall(r"[A-Za-z]{3,}", title.lower()) if word not in _STOP]
    return f"how do I {' '.join(words)}?" if len(words) > 1 else None


def _mistyped(title: str, chance: random.Random) -> str | None:
    """Return a title with a letter of one word left out, doubled, or in its neighbour's place."""
    words = title.split()
    long = [place for place, word in enumerate(words) if re.fullmatch(r"[A-Za-z]{5,}", word)]
    if not long:
        return None
    place = chance.choice(long)
    word, at = words[place], chance.randrange(1, len(words[place]) - 1)
    swapped = word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    words[place] = chance.choice([word[:at] + word[at + 1 :], word[:at] + word[at] + word[at:], swapped])
    return " ".join(words)


def _identifier(body: str, words: Counter[str], chance: random.Random) -> str | None:
    """Return an identifier that only this document holds."""
    own = [
        word
        for word in dict.fromkeys(_IDENTIFIER.findall(body))
        if words[word] == 1 and len(word) > 4 and re.search(r"[A-Za-z]", word) and re.search(r"[0-9._]", word)
    ]
    return chance.choice(own) if own else None


def _split(identifier: str | None, chance: random.Random) -> str | None:
    """Return an identifier with blanks, or in capitals with other separators."""
    if identifier is None:
        return None
    other = re.sub(r"[-_./]", "-" if "_" in identifier else "_", identifier).upper()
    return chance.choice([re.sub(r"[-_./]", " ", identifier), other])


def _joined(identifier: str | None) -> str | None:
    """Return an identifier without separators."""
    return identifier and re.sub(r"[-_./]", "", identifier)
