"""drops what another may have made"""

import sqlalchemy as sa
from alembic import op

revision = "guarded"
down_revision = "notes"


def upgrade() -> None:
    op.execute("CREATE TABLE IF NOT EXISTS carts (id int PRIMARY KEY)")


def downgrade() -> None:
    op.execute("DROP TABLE IF EXISTS carts")
