"""organizations: the tenants"""

import sqlalchemy as sa
from alembic import op

revision = "create_organizations"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "organizations",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("slug", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.UniqueConstraint("slug", name="organizations_slug_key"),
    )


def downgrade() -> None:
    op.drop_table("organizations")
