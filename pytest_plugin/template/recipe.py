"""Describe the contents of a template database, and build them: migrations, then rows."""

from __future__ import annotations

import hashlib
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import psycopg2
import pytest

import myloware_store
from myloware_store import Store
from myloware_store.core.errors import MigrationError, MissingExtension
from myloware_store.ops.migrate import migrate, migrations_path
from myloware_store.settings import Settings

from ..errors import Unusable
from ..options import STORE_ENVIRON

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from psycopg2.extensions import cursor

__all__ = ["Recipe"]

_PLUGIN = Path(__file__).parents[1]


@attrs.frozen
class _SqlFile:
    """A seed in SQL, and its file."""

    path: Path
    text: str


def _sample(store: Store) -> None:
    """Insert the library's sample data."""
    from myloware_store.seed import seed

    seed(store.db)


_sample.version = "the library's files"  # type: ignore[attr-defined]  # they are in every digest


def _migrations(given: Any) -> tuple[Path | Callable[[str], object], ...]:
    """Check the value of the fixture `myloware_migrations`."""
    steps = [given] if isinstance(given, str | Path) or callable(given) else list(given or ())
    checked = [step if callable(step) else Path(step) for step in steps]
    for step in checked:
        if isinstance(step, Path) and not any(step.glob("[0-9]*.py")):
            pytest.fail(f"myloware_migrations: there is no migration in {step}", pytrace=False)
    return tuple(checked)


def _seed(given: Any) -> _SqlFile | Callable[[Store], object] | None:
    """Check the value of the fixture `myloware_seed`, or of a marker."""
    if given is None or given is False or given == "none":
        return None
    if given is True or given == "sample":
        return _sample
    if callable(given):
        return given  # type: ignore[no-any-return]
    if not isinstance(given, str | Path) or Path(given).suffix != ".sql":
        allowed = "'sample', 'none', a .sql file or a function of an open store"
        pytest.fail(f"myloware_seed is {allowed}, not {given!r}", pytrace=False)
    try:
        return _SqlFile(Path(given), Path(given).read_text(encoding="utf-8"))
    except OSError as error:
        pytest.fail(f"myloware_seed: {error}", pytrace=False)


@attrs.frozen(eq=False)
class Recipe:
    """The contents of a template.

    Attributes:
        migrations: Migrations after the library's own: folders of peewee-migrate's, or
            functions of the database's URL.
        seed: The rows: a file of SQL, a function of an open store, or None.
    """

    migrations: tuple[Path | Callable[[str], object], ...] = attrs.field(default=(), converter=_migrations)
    seed: _SqlFile | Callable[[Store], object] | None = attrs.field(default=None, converter=_seed)

    @property
    def lasting(self) -> bool:
        """Whether later runs may use the template, because the digest covers everything that it depends on.

        A function may read anything. A function with a `version` promises to change it when its results change.
        """
        return all(hasattr(step, "version") for step in (*self.migrations, self.seed) if callable(step))

    @property
    def digest(self) -> str:
        """The digest of the library, its migrations and sample data, this plugin, the migrations and the seed."""
        digest = hashlib.sha256()
        for part in self._parts():
            digest.update(len(part).to_bytes(8) + part)
        return digest.hexdigest()

    def apply(self, url: str) -> None:
        """Migrate and seed an empty database.

        Raises:
            StoreError: The library's own migrations failed; a function may raise anything.
            Unusable: A migration in a folder or a seed in SQL failed; the message names the file. Or the role may not
                create the extension.
        """
        settings = Settings.load(url, environ=STORE_ENVIRON, dotenv=None)
        try:
            migrate(settings)
        except MissingExtension as error:
            if settings.user and "may not create" in str(error):
                raise Unusable(
                    f"the role {settings.user} may not create the extension vector: have a superuser run `CREATE"
                    " EXTENSION vector` in the database template1 of the server, of which databases of tests are copies"
                ) from None
            raise
        for step in self.migrations:
            if callable(step):
                step(url)
            else:
                _migrate_folder(step, settings)
        if callable(self.seed):
            with Store.open(settings=settings) as store:
                self.seed(store)
        elif self.seed is not None:
            try:
                with _cursor(settings) as run:
                    run.execute(self.seed.text)
            except psycopg2.Error as error:
                raise Unusable(f"myloware_seed: {self.seed.path.absolute()}: {str(error).strip()}") from None
        _log_tables(settings)

    def _parts(self) -> Iterator[bytes]:
        folders = [Path(myloware_store.__file__).parent, migrations_path(), _PLUGIN]
        for folder in [*folders, *(step for step in self.migrations if isinstance(step, Path))]:
            for path in sorted(folder.rglob("*")):
                if path.is_file() and path.parent.name != "__pycache__":
                    yield path.relative_to(folder).as_posix().encode()
                    yield path.read_bytes()
        for step in (*self.migrations, self.seed):
            if callable(step):
                yield _fingerprint(step).encode()
            else:
                yield step.text.encode() if isinstance(step, _SqlFile) else b""


def _fingerprint(step: Any) -> str:
    """Identify a function: by name, file and version, else by its code and the values that it holds."""
    code = getattr(step, "__code__", None)
    if code is None:
        return f"{type(step).__module__}.{type(step).__qualname__} {getattr(step, 'version', step)!r}"
    name = f"{step.__module__}.{step.__qualname__} {code.co_filename}:{code.co_firstlineno}"
    if hasattr(step, "version"):
        return f"{name} {step.version}"
    held = [cell.cell_contents for cell in step.__closure__ or ()]
    return f"{name} {code.co_code.hex()} {code.co_consts!r} {step.__defaults__!r} {step.__kwdefaults__!r} {held!r}"


def _log_tables(settings: Settings) -> None:
    """Make unlogged tables logged: a crash of the server would empty them, in the template too."""
    unlogged = """
        SELECT format('ALTER TABLE %I.%I SET LOGGED', n.nspname, c.relname)
        FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
        WHERE c.relkind = 'r' AND c.relpersistence = 'u'
        """
    with _cursor(settings) as run:
        run.execute(unlogged)
        for (statement,) in run.fetchall():
            run.execute(statement)


@contextmanager
def _cursor(settings: Settings) -> Iterator[cursor]:
    with closing(psycopg2.connect(**settings.connect_kwargs())) as connection, connection, connection.cursor() as run:
        yield run


def _migrate_folder(folder: Path, settings: Settings) -> None:
    """Apply a service's own migrations."""
    try:
        migrate(settings, directory=folder)
    except MigrationError as error:
        raise Unusable(f"myloware_migrations: {folder.absolute()}: {error}") from None
