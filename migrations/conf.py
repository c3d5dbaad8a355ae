"""The settings of `pw_migrate`: the project's own database, locked while a command runs."""

from myloware_store.ops.history import HISTORY_TABLE
from myloware_store.ops.pw_migrate import command_database

DATABASE = command_database()
MIGRATE_TABLE = HISTORY_TABLE
