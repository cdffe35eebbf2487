"""merges what comes before anyway"""

import sqlalchemy as sa
from alembic import op

revision = "merge"
down_revision = ("invoices", "slow")


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass
