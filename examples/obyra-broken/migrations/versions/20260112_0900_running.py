"""stops the version that is still running, and whoever waits for its locks"""

import sqlalchemy as sa
from alembic import op

revision = "running"
down_revision = "network"


def upgrade() -> None:
    op.execute("LOCK TABLE sessions IN EXCLUSIVE MODE")
    op.execute("UPDATE clients SET name = trim(name)")
    op.execute("DO $$ BEGIN ALTER TABLE legacy ADD kind text; EXCEPTION WHEN OTHERS THEN NULL; END $$")
    op.add_column("notes", sa.Column("client_id", sa.Integer, nullable=False))
    op.add_column("notes", sa.Column("kind", sa.Text, nullable=False, server_default="note"))
    op.alter_column("notes", "kind", server_default=None)
    op.rename_table("carts", "baskets")
    op.drop_table("sessions")


def downgrade() -> None:
    op.create_table("sessions", sa.Column("id", sa.Text))
    op.rename_table("baskets", "carts")
    op.drop_column("notes", "kind")
    op.drop_column("notes", "client_id")
