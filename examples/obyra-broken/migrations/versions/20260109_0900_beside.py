"""a connection of its own"""

import sqlalchemy as sa
from alembic import op
import os

revision = "beside"
down_revision = "guarded"


def upgrade() -> None:
    with sa.create_engine(os.environ["DATABASE_URL"]).begin() as other:
        other.execute(sa.text("CREATE TABLE IF NOT EXISTS app.beside (id int)"))


def downgrade() -> None:
    op.execute("DROP TABLE IF EXISTS app.beside")
