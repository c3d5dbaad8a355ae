"""The database roles of a deployment: who owns the tables, and what services, workers and readers may do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from myloware_store.core.errors import DatabaseFault, InvalidInput
from myloware_store.core.sql import queries_beside
from myloware_store.ops.catalog import expected_names, find_home
from myloware_store.ops.history import HISTORY_TABLE, require_database

if TYPE_CHECKING:
    from myloware_store.db.database import StoreDatabase

__all__ = ["RoleNames", "Statement", "set_up_roles"]

_sql = queries_beside(__file__, "roles.sql")
_SECTIONS = ("create", "attributes", "memberships", "owner", "grants")
_QUALIFIED = "SET LOCAL search_path = pg_catalog"


@attrs.frozen
class RoleNames:
    """The names of the roles.

    Attributes:
        owner: Owns the tables, and migrates them. Services never log in as it.
        app: Services: reads and writes rows; no DDL, no TRUNCATE. Row-level security binds it.
        worker: Workers: what `app` may do, for all tenants.
        readonly: Reads. Row-level security binds it.
    """

    owner: str = "myloware_owner"
    app: str = "myloware_app"
    worker: str = "myloware_worker"
    readonly: str = "myloware_readonly"

    def __attrs_post_init__(self) -> None:
        if len(set(attrs.astuple(self))) < len(attrs.astuple(self)):
            raise InvalidInput(f"roles: {', '.join(attrs.astuple(self))} are not four different names")


@attrs.frozen
class Statement:
    """A statement that was missing.

    Attributes:
        sql: The statement.
        refused: Why this role could not run it; None if it could.
    """

    sql: str
    refused: str | None = None


def set_up_roles(database: StoreDatabase, names: RoleNames, *, apply: bool) -> list[Statement]:
    """Find what is missing of the roles and their rights on the store's schema, by doing it in one transaction.

    The roles get no passwords: they cannot log in with one until somebody sets it.

    Args:
        database: The database, migrated.
        names: The names of the roles.
        apply: Whether to commit; otherwise everything is rolled back.

    Returns:
        The statements that were missing; none if everything is as it should be. A statement that this role may not run
        is left out, and those after it are tried nevertheless.

    Raises:
        InvalidInput: That is not a database, or the store's schema is not in it.
    """
    require_database(database)
    home = find_home(database)
    if home is None:
        raise InvalidInput("roles: the store's schema does not exist; run `myloware-store migrate` first")
    values = {
        **attrs.asdict(names),
        "home": home.oid,
        "history": HISTORY_TABLE,
        "tables": [HISTORY_TABLE, *expected_names("table")],
        "functions": expected_names("function"),
        "types": expected_names("enum", "domain"),
    }
    done: list[Statement] = []
    with database.atomic() as transaction:
        database.execute_sql(_QUALIFIED)
        for section in _SECTIONS:
            missing = [sql for (sql,) in database.execute_sql(_sql(section), values).fetchall()]
            done += [_run(database, sql) for sql in missing]
            if section == "create" and any(one.refused for one in done):
                break  # the other statements name these roles
        if not apply:
            transaction.rollback()
    return done


def _run(database: StoreDatabase, sql: str) -> Statement:
    try:
        with database.atomic():
            database.execute_sql(sql.replace("%", "%%"))
    except DatabaseFault as error:
        return Statement(sql, str(error))
    return Statement(sql)
