"""The docstrings of public calls name every parameter, the result and the errors."""

from __future__ import annotations

import inspect
import re
from typing import TYPE_CHECKING, Any

import pytest

from myloware_store import Store, Worker
from myloware_store.memory.engine import Memory
from myloware_store.memory.index import MemoryIndex
from myloware_store.platform.audit import Audit
from myloware_store.platform.connectors import Connectors
from myloware_store.platform.records import Evals, Runs
from myloware_store.platform.schemas import Schemas
from myloware_store.platform.templates import Templates
from myloware_store.platform.tools import Capabilities, Tools
from myloware_store.work.approvals import Approvals
from myloware_store.work.dead_letters import DeadLetters
from myloware_store.work.engine import Work

if TYPE_CHECKING:
    from collections.abc import Iterator

PUBLIC = (
    Store,
    Worker,
    Work,
    Approvals,
    DeadLetters,
    Memory,
    MemoryIndex,
    Runs,
    Evals,
    Audit,
    Connectors,
    Tools,
    Capabilities,
    Schemas,
    Templates,
)


def methods() -> Iterator[Any]:
    """Yield the public methods of the classes that users meet."""
    for cls in PUBLIC:
        for name, method in inspect.getmembers(cls, callable):
            if not name.startswith("_") and inspect.isroutine(method):
                yield pytest.param(method, id=f"{cls.__name__}.{name}")


@pytest.mark.parametrize("method", [*methods()])
def test_public_methods_say_what_they_take_return_and_raise(method: Any) -> None:
    """`Returns` may be left out if the first line says it."""
    text = inspect.getdoc(method) or ""
    parameters = [name for name in inspect.signature(method).parameters if name not in {"self", "cls"}]
    described = re.findall(r"^    (\w+): ", text, re.MULTILINE)
    assert [name for name in parameters if name not in described] == []
    returned = inspect.signature(method).return_annotation
    assert returned in {None, "None"} or "\nReturns:\n" in text or re.match(r"Returns? ", text)
    assert not parameters or "\nRaises:\n" in text
