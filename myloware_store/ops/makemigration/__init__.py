"""Write migrations from the difference between models and the migrations that exist."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
import shutil
import tempfile
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from myloware_store.core.errors import InvalidInput, MigrationError, MissingObject
from myloware_store.models import MODELS
from myloware_store.ops.catalog import split_key
from myloware_store.ops.ddl import create_all
from myloware_store.ops.history import available_migrations, history_name, migrations_path
from myloware_store.ops.makemigration.objects import Objects, read_objects
from myloware_store.ops.makemigration.rendering import render
from myloware_store.ops.makemigration.steps import compare
from myloware_store.ops.migrate import migrate, rollback
from myloware_store.ops.scratch import scratch_database
from myloware_store.ops.target import opened

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import ModuleType

    import peewee

    from myloware_store.db.database import StoreDatabase
    from myloware_store.settings import Settings

__all__ = ["Draft", "makemigration"]

_NAME = re.compile(r"[a-z0-9_]{1,100}")
_MOST = 999


@attrs.frozen
class Draft:
    """What `makemigration` has written.

    Attributes:
        files: The new migrations, in their order; none if models and migrations agree.
        review: What the reviewer must know; the files have it as comments.
        unexpressed: The differences that it cannot write, with the reason: write them by hand.
    """

    files: tuple[Path, ...]
    review: tuple[str, ...]
    unexpressed: dict[str, str]


def makemigration(
    name: str,
    *,
    models: str | None = None,
    directory: Path | str | None = None,
    server: Settings | None = None,
) -> Draft:
    """Write the migrations that lead from the last file of a folder to the models.

    Both are created in a scratch database and compared there. Before they are written, the new migrations are applied
    to it, compared with the models, and rolled back.

    Args:
        name: What the migrations do, in small letters, digits and underscores; the file's name, after its number.
        models: The module of a service's models, by default the store's own. It is imported, with the modules inside
            if it is a package. Each Peewee model that it defines has a table, unless others inherit from it. If the
            module has a function `create_all(database)`, that creates everything instead: also types, functions and
            triggers, which are otherwise left alone.
        directory: The folder of migrations, by default that of the store, or `migrations` for a service.
        server: A database on a server where the role may create databases, by default an embedded server that lives
            as long.

    Returns:
        The written files, and what to review.

    Raises:
        InvalidInput: The name, the module or the folder is wrong.
        MigrationError: An existing migration failed, or the new ones don't lead to the models; nothing was written.
        EmbeddedServerError: There is no server for the scratch database.
        ConnectionFailed: The server cannot be reached.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InvalidInput(f"name must be small letters, digits and underscores, not {str(name)[:255]!r}")
    folder = _folder(directory, models)
    project = _Project(folder, None if models is None else _import(models))
    known = available_migrations(folder)
    first = int(known[-1][:3]) + 1 if known else 1
    with scratch_database(server) as settings, opened(settings) as database:
        if models is not None:
            migrate(settings)
            project.stores = frozenset(read_objects(database).catalog)
        new = _described(project, database)
        if known:
            migrate(settings, directory=folder)
        old = project.own(read_objects(database), new)
        difference = compare(old, new)
        texts = render(name, difference, first)
        if first + len(texts) - 1 > _MOST:
            raise MigrationError(f"a migration has three digits: there is no number after {known[-1]}")
        with _copied(folder, texts) as copy:
            try:
                if texts:
                    migrate(settings, directory=copy)
                _require_same(project.own(read_objects(database), new), new, difference.unexpressed, "applied")
                if texts:
                    rollback(settings, directory=copy, count=len(texts))
                # Labels stay.
                but = {*difference.unexpressed, *(key for key in new.enums if key in old.catalog)}
                _require_same(project.own(read_objects(database), new), old, but, "undone")
            except MigrationError as error:
                raise MigrationError(f"this difference must be written by hand, nothing was written: {error}") from None
    return Draft(
        _written(folder, texts),
        tuple(dict.fromkeys(note for step in difference.steps for note in step.review)),
        difference.unexpressed,
    )


class _Project:
    """The store's own models, or those of a service, whose tables come beside the store's."""

    def __init__(self, folder: Path, module: ModuleType | None) -> None:
        self.history = history_name(folder)
        self.describe: Callable[[peewee.Database], None] = create_all
        self.whole = module is None or hasattr(module, "create_all")
        if module is not None:
            self.describe = module.create_all if self.whole else partial(_create_tables, _models(module))
        self.stores: frozenset[str] = frozenset()

    def own(self, objects: Objects, new: Objects | None = None) -> Objects:
        """Leave out what is the store's, and what models cannot describe."""

        def is_own(key: str) -> bool:
            kind, table, _ = split_key(key)
            if key in self.stores or table == self.history:
                return False
            if self.whole or new is None or key in new.catalog:
                return True
            return kind in {"table", "column", "constraint", "index"} and f"table {table}" not in self.stores

        return objects.only(is_own)


def _described(project: _Project, database: StoreDatabase) -> Objects:
    with database.atomic() as block:
        _told("creating what the models describe", partial(project.describe, database))
        new = project.own(read_objects(database))
        block.rollback()
    return new


@contextmanager
def _copied(folder: Path, texts: dict[str, str]) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as place:
        for path in folder.glob("*.py"):
            shutil.copy(path, place)
        for name, text in texts.items():
            Path(place, f"{name}.py").write_text(text, encoding="utf-8")
        yield Path(place)


def _require_same(found: Objects, wanted: Objects, but: Iterable[str], what: str) -> None:
    keys = (found.catalog.keys() | wanted.catalog.keys()).difference(but)
    if wrong := sorted(key for key in keys if found.catalog.get(key) != wanted.catalog.get(key)):
        raise MigrationError(f"once {what}, these differ: {', '.join(wrong)}")


def _written(folder: Path, texts: dict[str, str]) -> tuple[Path, ...]:
    paths: list[Path] = []
    try:
        for name, text in texts.items():
            with (folder / f"{name}.py").open("x", encoding="utf-8") as file:
                paths.append(Path(file.name))
                file.write(text)
    except OSError as error:
        for path in paths:
            path.unlink()
        raise MigrationError(f"cannot write {error.filename}: {error.strerror}") from None
    return tuple(paths)


def _folder(directory: Path | str | None, models: str | None) -> Path:
    if directory is None:
        folder = migrations_path() if models is None else Path("migrations")
    elif isinstance(directory, Path | str):
        folder = Path(directory)
    else:
        raise InvalidInput(f"directory must be a path, not {type(directory).__name__}")
    if not folder.is_dir():
        raise InvalidInput(f"there is no folder {str(folder)[-255:]!r}: create it, or name it with --directory")
    return folder


def _import(name: str) -> ModuleType:
    try:
        module = importlib.import_module(name)
        for found in pkgutil.iter_modules(getattr(module, "__path__", ()), f"{name}."):
            if not found.name.rpartition(".")[2].startswith("__"):  # a program, such as __main__
                _import(found.name)
    except InvalidInput:
        raise
    except Exception as error:  # a module may raise anything
        raise InvalidInput(f"cannot import {str(name)[:255]!r}: {type(error).__name__}: {error}") from error
    return module


def _models(module: ModuleType) -> list[type[peewee.Model]]:
    """Return the models of a module or package that have a table, parents first."""
    import sys

    import peewee

    inside = f"{module.__name__}."
    found = {
        value
        for name, each in sorted(sys.modules.items())
        if name == module.__name__ or name.startswith(inside)
        for value in vars(each).values()
        if inspect.isclass(value) and issubclass(value, peewee.Model) and value.__module__ == name
    }
    bases = {base for model in found for base in model.__mro__[1:]}
    ordered = peewee.sort_models(found - bases)  # type: ignore[attr-defined]  # not in the stubs
    if models := [model for model in ordered if model not in MODELS]:
        return models
    raise InvalidInput(f"{module.__name__} defines no Peewee model")


def _create_tables(models: list[type[peewee.Model]], database: peewee.Database) -> None:
    try:
        with database.bind_ctx(models, bind_refs=False, bind_backrefs=False):
            for model in models:
                model.create_table(safe=False)
    except MissingObject as fault:
        raise MissingObject(f"{fault}; tables that need types or functions are made by `create_all`") from None


def _told(what: str, action: Callable[[], object]) -> None:
    try:
        action()
    except Exception as error:  # a migration may raise anything
        raise MigrationError(f"{what} failed: {type(error).__name__}: {str(error).strip()}") from error
