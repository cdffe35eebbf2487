"""clients; its downgrade does nothing"""

import sqlalchemy as sa
from alembic import op

revision = "clients"
down_revision = "baseline"


def upgrade() -> None:
    op.create_table("clients", sa.Column("id", sa.Integer, primary_key=True), sa.Column("name", sa.Text))


def downgrade() -> None:
    pass
