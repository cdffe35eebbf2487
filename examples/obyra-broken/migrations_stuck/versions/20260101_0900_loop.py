"""without an end"""

import sqlalchemy as sa
from alembic import op

revision = "loop"
down_revision = None


def upgrade() -> None:
    while True:
        op.execute("SELECT 1")


def downgrade() -> None:
    pass
