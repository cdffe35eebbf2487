"""budgets and their items (branch: budgets)"""

import sqlalchemy as sa
from alembic import op

revision = "create_budgets"
down_revision = "create_projects"


def upgrade() -> None:
    op.create_table(
        "budgets",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("organization_id", sa.Integer, nullable=False),
        sa.Column("project_id", sa.Integer, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("currency", sa.Text, server_default="ARS", nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.ForeignKeyConstraint(
            ["organization_id", "project_id"], ["projects.organization_id", "projects.id"], ondelete="CASCADE"
        ),
        sa.UniqueConstraint("project_id", "name", name="budgets_project_id_name_key"),
        sa.UniqueConstraint("organization_id", "id", name="budgets_organization_id_id_key"),
        sa.CheckConstraint("currency IN ('ARS', 'USD')", name="budgets_currency_known"),
    )
    op.create_table(
        "budget_items",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("budget_id", sa.Integer, sa.ForeignKey("budgets.id", ondelete="CASCADE"), nullable=False),
        sa.Column("description", sa.Text, nullable=False),
        sa.Column("unit", sa.Text, nullable=False),
        sa.Column("quantity", sa.Numeric(14, 3), nullable=False),
        sa.Column("unit_price", sa.Numeric(14, 2), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.UniqueConstraint("budget_id", "description", name="budget_items_budget_id_description_key"),
        sa.CheckConstraint("quantity > 0", name="budget_items_quantity_positive"),
        sa.CheckConstraint("unit_price >= 0", name="budget_items_unit_price_not_negative"),
    )


def downgrade() -> None:
    op.drop_table("budget_items")
    op.drop_table("budgets")
