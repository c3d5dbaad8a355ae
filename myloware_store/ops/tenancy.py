"""Row-level security: whether the database itself keeps each tenant's rows apart, as an option of a deployment."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

import attrs

from myloware_store.core.errors import InvalidInput, TransactionConflict
from myloware_store.core.sql import queries_beside
from myloware_store.ops.catalog import expected_names, find_home
from myloware_store.ops.history import require_database
from myloware_store.ops.roles import RoleNames

if TYPE_CHECKING:
    from myloware_store.db.database import StoreDatabase

__all__ = ["POLICY", "TableTenancy", "Tenancy", "enforce", "read_tenancy", "relax"]

_sql = queries_beside(__file__, "tenancy.sql")

POLICY = "tenant_isolation"
"""The name of the policy on each table."""

_TENANT = "COALESCE(NULLIF(current_setting('myloware.tenant', true), ''), tenant_in_force())"
_EXPECTED = f"* PERMISSIVE USING (tenant_id = {_TENANT}) WITH CHECK (tenant_id = {_TENANT})"
_LIMITS = "SET LOCAL lock_timeout = '2s'"
_PATIENCE = 60.0  # seconds until `enforce` gives up on a table that is in use


@attrs.frozen
class TableTenancy:
    """Row-level security of one table.

    Attributes:
        table: Its name.
        enabled: Whether row-level security is on.
        forced: Whether it also binds the owner, which hides rows from dumps and from the upkeep of indexes.
        policy: The policy `tenant_isolation`, None if there is none.
        roles: The roles that it binds.
        others: The names of other policies.
    """

    table: str
    enabled: bool
    forced: bool
    policy: str | None
    roles: tuple[str, ...]
    others: tuple[str, ...]

    @property
    def as_made(self) -> bool:
        """Whether the table is as `enforce` leaves it."""
        return self.enabled and not self.forced and _plain(self.policy or "") == _EXPECTED

    @property
    def problem(self) -> str | None:
        """What is not as it should be where tenancy is enforced."""
        if not self.as_made:
            state = "on" if self.enabled else "off"
            forced = ", and forced on the owner" if self.forced else ""
            return f"{self.table}: row-level security is {state}{forced}; its policy is {self.policy or 'missing'}"
        if self.others:
            return f"{self.table} has other policies, of which searches know nothing: {', '.join(self.others)}"
        return None


@attrs.frozen
class Tenancy:
    """Row-level security of the store's tables.

    Attributes:
        tables: Every table that belongs to tenants.
        problems: What is not as `enforce` leaves it; empty if nothing is enforced.
    """

    tables: tuple[TableTenancy, ...]
    problems: tuple[str, ...]

    @property
    def enforced(self) -> bool:
        """Whether it is on for any table."""
        return any(table.enabled or table.policy for table in self.tables)


def read_tenancy(database: StoreDatabase, names: RoleNames | None = None) -> Tenancy:
    """Read what row-level security the store's tables have.

    Args:
        database: The database.
        names: The names of the roles, by default those of `RoleNames`. Without names, their rights are not looked at.

    Raises:
        InvalidInput: That is not a database, or the store's schema is not in it.
    """
    values = _where(database)
    tables = tuple(
        TableTenancy(name, enabled, forced, policy, tuple(roles), tuple(others))
        for name, enabled, forced, policy, roles, others in database.execute_sql(_sql("tables"), values).fetchall()
    )
    if not any(table.enabled or table.policy for table in tables):
        return Tenancy(tables, ())
    problems = [table.problem for table in tables if table.problem]
    if names is not None:
        rights = database.execute_sql(_sql("rights"), {**values, **attrs.asdict(names)})
        problems += [told for (told,) in rights.fetchall()]
    return Tenancy(tables, tuple(problems))


def enforce(database: StoreDatabase, names: RoleNames) -> Tenancy:
    """Let the roles `app` and `readonly` see and write the rows of the tenant in force only, in every table.

    Each table is changed in a transaction of its own, which waits for 2 seconds at a time for a lock on it, and a
    minute in all. What was changed stays if a later table fails; call it again.

    Args:
        database: The database, open as the owner of the tables.
        names: The names of the roles, which must exist.

    Raises:
        InvalidInput: A role does not exist, or the store's schema is not there.
        DatabaseFault: This role does not own the tables.
        TransactionConflict: A table was in use for a minute.
    """
    bound = [names.app, names.readonly]
    query = "SELECT role FROM unnest(%s::text[]) AS given (role) WHERE to_regrole(quote_ident(role)) IS NULL"
    if missing := [role for (role,) in database.execute_sql(query, (bound,)).fetchall()]:
        raise InvalidInput(
            f"the role {missing[0]} does not exist: run `myloware-store roles --apply`, or give the names of yours"
        )
    query = "SELECT string_agg(quote_ident(role), ', ') FROM unnest(%s::text[]) AS given (role)"
    (roles,) = database.execute_sql(query, (bound,)).fetchone()
    condition = f"(tenant_id = {_TENANT})"
    for table in read_tenancy(database).tables:
        _change(
            database,
            f"DROP POLICY IF EXISTS {POLICY} ON {table.table}",
            f"CREATE POLICY {POLICY} ON {table.table} TO {roles} USING {condition} WITH CHECK {condition}",
            f"ALTER TABLE {table.table} ENABLE ROW LEVEL SECURITY, NO FORCE ROW LEVEL SECURITY",
        )
    return read_tenancy(database, names)


def relax(database: StoreDatabase) -> Tenancy:
    """Turn row-level security off, and remove the policies.

    Args:
        database: The database, open as the owner of the tables.

    Raises:
        InvalidInput: The store's schema is not there.
        DatabaseFault: This role does not own the tables.
        TransactionConflict: A table was in use for a minute.
    """
    for table in read_tenancy(database).tables:
        _change(
            database,
            f"ALTER TABLE {table.table} DISABLE ROW LEVEL SECURITY, NO FORCE ROW LEVEL SECURITY",
            f"DROP POLICY IF EXISTS {POLICY} ON {table.table}",
        )
    return read_tenancy(database)


def _where(database: StoreDatabase) -> dict[str, object]:
    require_database(database)
    home = find_home(database)
    if home is None or not home.leads:
        raise InvalidInput("tenancy: the store's schema is not the first of the search path; is it migrated?")
    return {"home": home.oid, "tables": expected_names("table")}


def _plain(policy: str) -> str:
    """Return a policy without the casts that the server adds, which depend on the type of the column."""
    return re.sub(r"\((tenant_id)\)|::text", r"\1", policy)


def _change(database: StoreDatabase, *statements: str) -> None:
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            with database.atomic():
                for statement in (_LIMITS, *statements):
                    database.execute_sql(statement.replace("%", "%%"))
        except TransactionConflict:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
        else:
            return
