"""index on payments by date, built concurrently"""

from alembic import op

revision = "index_payments_by_date"
down_revision = "isolate_organizations"

NAME = "ix_payments_project_id_paid_on"


def upgrade() -> None:
    with op.get_context().autocommit_block():
        # A build that was interrupted leaves an invalid index of this name behind.
        op.drop_index(NAME, "payments", if_exists=True, postgresql_concurrently=True)
        op.create_index(NAME, "payments", ["project_id", "paid_on"], postgresql_concurrently=True)


def downgrade() -> None:
    with op.get_context().autocommit_block():
        op.drop_index(NAME, "payments", if_exists=True, postgresql_concurrently=True)
