"""The template databases: migrated, seeded, named by what they were made from, and built once for everyone."""

from __future__ import annotations

import hashlib
import re
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import attrs
import psycopg2

from .home import KEPT_DAYS
from .marking import mark_database

if TYPE_CHECKING:
    from .maintenance import Maintenance
    from .recipe import Recipe

__all__ = ["Template", "ensure_template", "sweep"]

_UNUSED = timedelta(days=14)  # after that long nobody will ask for a template
_KEPT = timedelta(days=KEPT_DAYS)
_OF_A_RUN = re.compile("myloware_(?:test|build|run)_([0-9a-f]{12})_.*")


@attrs.frozen
class Template:
    """A template database.

    Attributes:
        name: The database.
        marked: Its twin, whose copies can put themselves back; None where the role is no superuser.
        built: Whether it was built now.
    """

    name: str
    marked: str | None
    built: bool


def ensure_template(maintenance: Maintenance, recipe: Recipe, run: str, *, recreate: bool = False) -> Template:
    """Build the template that a recipe describes unless it is there.

    Who comes while it is built waits. It is built under other names, so that what has its name is whole.

    Args:
        maintenance: The server.
        recipe: What it is made from.
        run: The test run, for what must not outlive it.
        recreate: Build it anew, once a run.
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
    """Drop what runs that ended without a word have left, and what nobody has used for long.

    A run holds its name as long as it lives; the server lets go of it when it dies, however it does.
    """
    for database in maintenance.names("myloware_"):
        found = _OF_A_RUN.fullmatch(database)
        if found:
            maintenance.drop_unless_held(database, found[1])
        elif database.startswith("myloware_template_") and _older(maintenance.notes(database).get("used"), _UNUSED):
            maintenance.drop_unless_held(database, database.removesuffix("_m"))
        elif database.startswith("myloware_kept_") and _older(maintenance.notes(database).get("used"), _KEPT):
            maintenance.drop(database)


def _older(day: str | None, age: timedelta) -> bool:
    return day is not None and datetime.now(UTC).date() - datetime.fromisoformat(day).date() > age
