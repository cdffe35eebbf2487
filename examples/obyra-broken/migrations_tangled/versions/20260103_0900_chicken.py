"""a cycle"""

import sqlalchemy as sa
from alembic import op

revision = "chicken"
down_revision = "egg"


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass
