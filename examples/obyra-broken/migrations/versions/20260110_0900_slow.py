"""takes its time"""

import sqlalchemy as sa
from alembic import op

revision = "slow"
down_revision = "beside"


def upgrade() -> None:
    op.execute("SELECT pg_sleep(1.2)")


def downgrade() -> None:
    pass
