"""payments to suppliers (branch: payments)"""

import sqlalchemy as sa
from alembic import op

revision = "create_payments"
down_revision = "create_suppliers"


def upgrade() -> None:
    op.create_table(
        "payments",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("organization_id", sa.Integer, nullable=False),
        sa.Column("project_id", sa.Integer, nullable=False),
        sa.Column("supplier_id", sa.Integer, sa.ForeignKey("suppliers.id"), nullable=False),
        sa.Column("amount", sa.Numeric(14, 2), nullable=False),
        sa.Column("currency", sa.Text, server_default="ARS", nullable=False),
        sa.Column("paid_on", sa.Date, nullable=False),
        sa.Column("bank_account", sa.Text),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.ForeignKeyConstraint(["organization_id", "project_id"], ["projects.organization_id", "projects.id"]),
        sa.CheckConstraint("amount > 0", name="payments_amount_positive"),
    )
    op.create_index("ix_payments_organization_id", "payments", ["organization_id"])
    op.create_index("ix_payments_supplier_id", "payments", ["supplier_id"])


def downgrade() -> None:
    op.drop_table("payments")
