"""projects, with the enum of their states"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "create_projects"
down_revision = "create_users"


def upgrade() -> None:
    op.execute("CREATE TYPE project_status AS ENUM ('planning', 'active', 'paused', 'finished')")
    op.create_table(
        "projects",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("organization_id", sa.Integer, sa.ForeignKey("organizations.id"), nullable=False),
        sa.Column("code", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column(
            "status",
            postgresql.ENUM(name="project_status", create_type=False),
            server_default="planning",
            nullable=False,
        ),
        sa.Column("starts_on", sa.Date),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.UniqueConstraint("organization_id", "code", name="projects_organization_id_code_key"),
        sa.UniqueConstraint("organization_id", "id", name="projects_organization_id_id_key"),
    )


def downgrade() -> None:
    op.drop_table("projects")
    op.execute("DROP TYPE project_status")
