"""The pytest plugin that ships with `myloware_store`: migrated, isolated databases for tests."""
