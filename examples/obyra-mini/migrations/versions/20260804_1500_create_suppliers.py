"""suppliers: the shared catalogue (branch: payments)"""

import sqlalchemy as sa
from alembic import op

revision = "create_suppliers"
down_revision = "create_projects"


def upgrade() -> None:
    op.create_table(
        "suppliers",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("tax_id", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("category", sa.Text, nullable=False),
        sa.UniqueConstraint("tax_id", name="suppliers_tax_id_key"),
    )


def downgrade() -> None:
    op.drop_table("suppliers")
