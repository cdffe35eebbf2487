"""What Alembic must not take for its own."""


def belongs_to_alembic(name: str | None, kind: str, parents: dict) -> bool:
    """False for the table in which obyra-db records the seeds: no model has it, and no revision may drop it."""
    return not (kind == "table" and name == "obyra_seeds")
