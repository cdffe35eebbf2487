"""the tables exist already, somewhere"""

import sqlalchemy as sa
from alembic import op

revision = "baseline"
down_revision = None


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass
