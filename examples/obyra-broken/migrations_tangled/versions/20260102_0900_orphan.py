"""its parent is missing"""

import sqlalchemy as sa
from alembic import op

revision = "orphan"
down_revision = "gone"


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass
