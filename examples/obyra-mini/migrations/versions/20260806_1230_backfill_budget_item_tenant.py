"""budget_items.organization_id, filled in batches, then required: contract"""

from alembic import context, op
from sqlalchemy import text

revision = "backfill_budget_item_tenant"
down_revision = "index_budget_item_tenant"

BATCH = 1000
BACKFILL = """
    UPDATE budget_items SET organization_id = budgets.organization_id
    FROM budgets
    WHERE budgets.id = budget_items.budget_id AND budget_items.organization_id IS NULL
"""
ONE_BATCH = BACKFILL + """
    AND budget_items.id IN (SELECT id FROM budget_items WHERE organization_id IS NULL ORDER BY id LIMIT :batch)
"""
TENANT_KEY = "budget_items_organization_id_budget_id_fkey"


def upgrade() -> None:
    # Each batch commits by itself: rows stay locked for moments, and a run that was cut short goes on where it was.
    with op.get_context().autocommit_block():
        backfill()
    # Both are promised for new rows first. Should this run have been cut short before, they are there already.
    for name in ("budget_items_tenant_known", TENANT_KEY, "budget_items_budget_id_fkey"):
        op.execute(f"ALTER TABLE budget_items DROP CONSTRAINT IF EXISTS {name}")
    op.execute(
        "ALTER TABLE budget_items ADD CONSTRAINT budget_items_tenant_known"
        " CHECK (organization_id IS NOT NULL) NOT VALID"
    )
    op.create_foreign_key(
        TENANT_KEY,
        "budget_items",
        "budgets",
        ["organization_id", "budget_id"],
        ["organization_id", "id"],
        ondelete="CASCADE",
        postgresql_not_valid=True,
    )
    # Old rows are checked outside of the transaction whose locks would keep everybody waiting.
    with op.get_context().autocommit_block():
        op.execute("ALTER TABLE budget_items VALIDATE CONSTRAINT budget_items_tenant_known")
        op.execute(f"ALTER TABLE budget_items VALIDATE CONSTRAINT {TENANT_KEY}")
    # SET NOT NULL takes the proof and reads nothing.
    op.alter_column("budget_items", "organization_id", nullable=False)
    op.drop_constraint("budget_items_tenant_known", "budget_items", type_="check")


def backfill() -> None:
    if context.is_offline_mode():
        op.execute(BACKFILL)
        return
    while op.get_bind().execute(text(ONE_BATCH), {"batch": BATCH}).rowcount:
        pass


def downgrade() -> None:
    op.drop_constraint(TENANT_KEY, "budget_items", type_="foreignkey")
    op.create_foreign_key(
        "budget_items_budget_id_fkey", "budget_items", "budgets", ["budget_id"], ["id"], ondelete="CASCADE"
    )
    op.alter_column("budget_items", "organization_id", nullable=True)
