"""index on budget_items(organization_id), built while the application writes (branch: budgets)"""

from alembic import op

revision = "index_budget_item_tenant"
down_revision = "add_budget_item_tenant"

NAME = "ix_budget_items_organization_id"


def upgrade() -> None:
    with op.get_context().autocommit_block():
        # A build that was interrupted leaves an invalid index of this name behind.
        op.drop_index(NAME, "budget_items", if_exists=True, postgresql_concurrently=True)
        op.create_index(NAME, "budget_items", ["organization_id"], postgresql_concurrently=True)


def downgrade() -> None:
    with op.get_context().autocommit_block():
        op.drop_index(NAME, "budget_items", if_exists=True, postgresql_concurrently=True)
