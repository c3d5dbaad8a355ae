"""The databases of one worker: templates, a slot for each, and the kept databases of failed tests."""

from __future__ import annotations

import os
import re
from collections.abc import Hashable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from ..errors import Unusable
from ..report.waiting import Waits
from ..server.maintenance import Maintenance
from ..template.building import Template, ensure_template, sweep
from ..template.recipe import Recipe
from .slot import Slot

if TYPE_CHECKING:
    from ..options import Mode, Options
    from ..server.maintenance import Server

__all__ = ["Databases"]


class Databases:
    """The databases of one worker of a test run.

    Args:
        server: The server.
        run: The name of the run, the same for all of its workers.
        migrations: The migrations after the library's own.
        options: The options of the run.

    Attributes:
        options: The options of the run.
        shared: The database that a class or module uses now.
        kept: The databases of failed tests: the test's id and the URL.
        remaking: The tests that made a new copy necessary.
        waits: The watch for lock waits.
    """

    def __init__(self, server: Server, run: str, migrations: Any, options: Options) -> None:
        self.server = server
        self.maintenance = Maintenance(server)
        self.run = run
        self.shared: Slot | None = None
        self.kept: list[tuple[str, str]] = []
        self.remaking: list[str] = []
        self._migrations = migrations
        self.options = options
        self._templates: dict[Any, Template] = {}
        self._failed: dict[Any, Unusable] = {}
        self._slots: dict[str, Slot] = {}
        self._fell_back = False
        self._worker = os.environ.get("PYTEST_XDIST_WORKER", "main")
        self._process = os.getpid()
        self._prefix = f"myloware_test_{run}_{self._worker}_"
        self.waits = Waits(server, self._prefix)
        self.maintenance.hold(run)
        sweep(self.maintenance)

    @property
    def inherited(self) -> bool:
        """Whether this process was forked from the one that they belong to."""
        return os.getpid() != self._process

    def require_own(self) -> None:
        """Refuse to lend them to a forked process.

        Raises:
            Unusable: This process was forked.
        """
        if self.inherited:
            raise Unusable(
                "this process was forked by a test, and continues with its parent's tests on its parent's databases:"
                " end such a process with os._exit()"
            )

    def template(self, seed: Any) -> Template:
        """Return the template with a seed, built if needed; a build that failed is not tried again."""
        key = seed if isinstance(seed, Hashable) else repr(seed)
        if key in self._failed:
            raise self._failed[key]
        if key not in self._templates:
            recipe = Recipe(self._migrations, seed)
            recreate = self.options.recreate
            try:
                self._templates[key] = ensure_template(self.maintenance, recipe, self.run, recreate=recreate)
            except Unusable as error:
                self._failed[key] = error
                raise
            except Exception as error:
                message = f"the template database could not be built: {type(error).__name__}: {error}"
                self._failed[key] = Unusable(message)
                raise
        return self._templates[key]

    def slot(self, mode: Mode, seed: Any) -> Slot:
        """Return this worker's database for a mode and a seed."""
        template = self.template(seed)
        marked = template.marked if mode != "clone" else None
        self._fell_back |= mode == "restore" and marked is None
        source = marked or template.name
        if source not in self._slots:
            name, limit = f"{self._prefix}{len(self._slots)}", self.options.lock_timeout
            restorable = marked is not None
            self._slots[source] = Slot(self.maintenance, name, source, restorable=restorable, lock_timeout=limit)
        return self._slots[source]

    def keep(self, slot: Slot, test: str) -> None:
        """Keep a database as it is now."""
        readable = re.sub(r"\W+", "_", test.rpartition("/")[2])[:28].strip("_").lower()
        name = f"myloware_kept_{self.run[:6]}_{self._worker}_{len(self.kept)}_{readable}"
        slot.give_away(name)
        self.maintenance.note(name, test=test, used=datetime.now(UTC).date().isoformat())
        self.kept.append((test, self.server.url(name)))

    def reference(self, slot: Slot) -> str:
        """Return the URL of a fresh copy of the slot's template; the first call creates it."""
        name = f"{slot.name}_ref"
        if not self.maintenance.exists(name):
            self.maintenance.create(name, template=slot.template)
        return self.server.url(name)

    def close(self) -> None:
        """Drop this worker's databases, and as the last worker also the templates of this run alone."""
        self.waits.end()
        for slot in self._slots.values():
            slot.drop()
            self.maintenance.drop(f"{slot.name}_ref")
        self.maintenance.release(self.run)
        for name in self.maintenance.names(f"myloware_run_{self.run}_"):
            self.maintenance.drop_unless_held(name, self.run)
        self.maintenance.close()

    def summary(self) -> dict[str, Any]:
        """Return the part of this worker in the last lines of the run, in JSON types."""
        postgres, pgvector = self.maintenance.versions
        return {
            "server": f"PostgreSQL {postgres}, pgvector {pgvector} ({self.server.description})",
            "templates": {each.name: each.built for each in self._templates.values()},
            "remade": sum(slot.remade for slot in self._slots.values()),
            "remaking": self.remaking,
            "fallback": self._fell_back,
            "kept": self.kept,
            "down": self.server.stay() if self.kept else "",
        }
