"""Create the table of payments."""

CREATE = """
    CREATE TABLE payments (
        number text PRIMARY KEY,
        work_item_id uuid NOT NULL REFERENCES work_items ON DELETE CASCADE,
        currency text NOT NULL,
        amount numeric(12, 2) NOT NULL CHECK (amount >= 0)
    )
    """


def migrate(migrator, database, **options):
    """Create it."""
    migrator.sql(CREATE)


def rollback(migrator, database, **options):
    """Drop it."""
    migrator.sql("DROP TABLE payments")
