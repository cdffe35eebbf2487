"""budget_items.organization_id, empty for now: the expanding half (branch: budgets)"""

import sqlalchemy as sa
from alembic import op

revision = "add_budget_item_tenant"
down_revision = "create_budgets"


def upgrade() -> None:
    op.add_column("budget_items", sa.Column("organization_id", sa.Integer))


def downgrade() -> None:
    op.drop_column("budget_items", "organization_id")
