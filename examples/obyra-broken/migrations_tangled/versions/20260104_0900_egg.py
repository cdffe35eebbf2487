"""a cycle"""

import sqlalchemy as sa
from alembic import op

revision = "egg"
down_revision = "chicken"


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass
