"""Build the template databases, once for all workers and later runs, and drop the ones that are no longer used."""

from __future__ import annotations

import hashlib
import re
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import attrs
import psycopg2
from psycopg2.errors import ObjectInUse

from ..server.home import KEPT_DAYS
from .marking import mark_database

if TYPE_CHECKING:
    from ..server.maintenance import Maintenance
    from .recipe import Recipe

__all__ = ["Template", "ensure_template", "sweep"]

_UNUSED = timedelta(days=14)
_KEPT = timedelta(days=KEPT_DAYS)
_OF_A_RUN = re.compile("myloware_(?:test|build|run)_([0-9a-f]{12})_.*")


@attrs.frozen
class Template:
    """A template database.

    Attributes:
        name: The database.
        marked: Its twin, whose copies can restore themselves; None if the role is no superuser.
        built: Whether this process built it.
    """

    name: str
    marked: str | None
    built: bool


def ensure_template(maintenance: Maintenance, recipe: Recipe, run: str, *, recreate: bool = False) -> Template:
    """Return the template of a recipe; build it if it does not exist.

    Other processes wait for the build. It has another name until it is complete.

    Args:
        maintenance: The server.
        recipe: The contents.
        run: The test run; the template of a recipe that is not lasting ends with it.
        recreate: Rebuild it, once a run.
    """
    digest = hashlib.sha256(f"{maintenance.versions} {maintenance.owner} {recipe.digest}".encode()).hexdigest()[:16]
    name = f"myloware_template_{digest}" if recipe.lasting else f"myloware_run_{run}_{digest}"
    marked = f"{name}_m" if maintenance.superuser else None
    wanted = [name, marked] if marked else [name]
    with maintenance.locked(name):
        built_by = maintenance.notes(name).get("run")
        fresh = all(maintenance.exists(each) for each in wanted) and not (recreate and built_by != run)
        if not fresh:
            _build(maintenance, recipe, name, marked, run)
        today = datetime.now(UTC).date().isoformat()
        for each in wanted:
            if maintenance.notes(each).get("used") != today:
                maintenance.note(each, run=built_by if fresh else run, used=today)
    return Template(name, marked, built=not fresh)


def _build(maintenance: Maintenance, recipe: Recipe, name: str, marked: str | None, run: str) -> None:
    build = f"myloware_build_{run}_{name[-16:]}"
    for each in (build, f"{build}_m", name, f"{name}_m"):
        maintenance.drop(each)
    maintenance.create(build)
    try:
        recipe.apply(maintenance.server.url(build))
        if marked:
            maintenance.create(f"{build}_m", template=build)
            kwargs = maintenance.server.connect_kwargs(f"{build}_m")
            with closing(psycopg2.connect(**kwargs)) as connection, connection, connection.cursor() as cursor:
                mark_database(cursor)
    except BaseException:
        maintenance.drop(f"{build}_m")
        maintenance.drop(build)
        raise
    if marked:
        maintenance.make_template(f"{build}_m", marked)
    maintenance.make_template(build, name)


def sweep(maintenance: Maintenance) -> None:
    """Drop the databases of dead runs, unused templates, and databases that were kept long enough.

    A run holds its name as a key. The server releases it when the run ends, even if it was killed. A database that
    cannot be dropped, such as one with a subscription, is left.
    """
    for database in maintenance.names("myloware_"):
        with suppress(ObjectInUse):
            found = _OF_A_RUN.fullmatch(database)
            if found:
                maintenance.drop_unless_held(database, found[1])
            elif database.startswith("myloware_template_") and _older(maintenance.notes(database).get("used"), _UNUSED):
                maintenance.drop_unless_held(database, database.removesuffix("_m"))
            elif database.startswith("myloware_kept_") and _older(maintenance.notes(database).get("used"), _KEPT):
                maintenance.drop(database)


def _older(day: str | None, age: timedelta) -> bool:
    return day is not None and datetime.now(UTC).date() - datetime.fromisoformat(day).date() > age
