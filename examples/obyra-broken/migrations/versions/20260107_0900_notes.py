"""its downgrade fails"""

import sqlalchemy as sa
from alembic import op

revision = "notes"
down_revision = "rating"


def upgrade() -> None:
    op.execute("CREATE TABLE notes (id int PRIMARY KEY)")


def downgrade() -> None:
    op.execute("DROP TABLE note")
