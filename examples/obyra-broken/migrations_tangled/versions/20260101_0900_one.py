"""fine"""

import sqlalchemy as sa
from alembic import op

revision = "one"
down_revision = None


def upgrade() -> None:
    op.execute("CREATE TABLE one (id int)")


def downgrade() -> None:
    op.execute("DROP TABLE one")
