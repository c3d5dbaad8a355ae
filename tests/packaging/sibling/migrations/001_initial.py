"""A migration of the sibling's."""


def migrate(migrator: object, database: object, *, fake: bool = False) -> None:
    """Do nothing."""
