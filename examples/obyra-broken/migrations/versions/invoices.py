"""a name without a date"""

import sqlalchemy as sa
from alembic import op

revision = "invoices"
down_revision = "running"


def upgrade() -> None:
    op.execute("CREATE TABLE invoices (id int PRIMARY KEY)")


def downgrade() -> None:
    op.execute("DROP TABLE invoices")
