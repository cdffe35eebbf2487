"""its downgrade leaves the type behind"""

import sqlalchemy as sa
from alembic import op

revision = "rating"
down_revision = "locks"


def upgrade() -> None:
    op.execute("CREATE TYPE rating AS ENUM ('bad', 'good')")
    op.execute("ALTER TABLE clients ADD COLUMN rating rating DEFAULT 'bad'")
    op.create_check_constraint("clients_named", "clients", "name <> 'x'")


def downgrade() -> None:
    op.drop_constraint("clients_named", "clients")
    op.drop_column("clients", "rating")
