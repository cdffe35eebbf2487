"""budget_items.organization_id, empty for now: expand (branch: budgets)"""

import sqlalchemy as sa
from alembic import op

revision = "add_budget_item_tenant"
down_revision = "create_budgets"


def upgrade() -> None:
    op.add_column("budget_items", sa.Column("organization_id", sa.Integer))
    op.create_index("ix_budget_items_organization_id", "budget_items", ["organization_id"])


def downgrade() -> None:
    op.drop_column("budget_items", "organization_id")
