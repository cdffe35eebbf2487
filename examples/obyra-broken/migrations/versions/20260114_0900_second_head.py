"""a second head"""

import sqlalchemy as sa
from alembic import op

revision = "second_head"
down_revision = "running"


def upgrade() -> None:
    op.execute("CREATE TABLE taxes (id int PRIMARY KEY)")


def downgrade() -> None:
    op.execute("DROP TABLE taxes")
