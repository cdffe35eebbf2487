"""budgets and payments meet again"""

revision = "merge_budgets_and_payments"
down_revision = ("backfill_budget_item_tenant", "create_payments")


def upgrade() -> None:
    """Two branches become one: nothing to change."""


def downgrade() -> None:
    """One becomes two branches: nothing to change."""
