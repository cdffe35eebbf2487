"""asks another machine"""

import sqlalchemy as sa
from alembic import op
import urllib.request

revision = "network"
down_revision = "slow"


def upgrade() -> None:
    try:
        urllib.request.urlopen("http://127.0.0.1:9/rates")
    except OSError:
        pass


def downgrade() -> None:
    pass
