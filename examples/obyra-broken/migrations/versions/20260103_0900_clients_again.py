"""the upgrade is skipped, the downgrade is not"""

import sqlalchemy as sa
from alembic import op

revision = "clients_again"
down_revision = "clients"


def upgrade() -> None:
    op.execute("CREATE TABLE IF NOT EXISTS clients (id int)")


def downgrade() -> None:
    op.execute("DROP TABLE clients CASCADE")
