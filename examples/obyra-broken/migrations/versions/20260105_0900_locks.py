"""rewrites and reads a table that others use"""

import sqlalchemy as sa
from alembic import op

revision = "locks"
down_revision = "legacy"


def upgrade() -> None:
    op.execute("DO $$ BEGIN ALTER TABLE clients ALTER COLUMN id TYPE bigint; END $$")
    op.create_index("clients_name", "clients", ["name"])
    op.alter_column("clients", "name", nullable=False)


def downgrade() -> None:
    op.alter_column("clients", "name", nullable=True)
    op.drop_index("clients_name", "clients")
    op.execute("ALTER TABLE clients ALTER COLUMN id TYPE int")
