"""the identifier of another"""

import sqlalchemy as sa
from alembic import op

revision = "one"
down_revision = None


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass
