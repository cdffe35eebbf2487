"""a table that nobody creates, and an error that nobody sees"""

import sqlalchemy as sa
from alembic import op

revision = "legacy"
down_revision = "clients_again"


def upgrade() -> None:
    try:
        with op.get_bind().begin_nested():
            op.execute("ALTER TABLE legacy ADD COLUMN kind text")
    except Exception:
        pass


def downgrade() -> None:
    pass
