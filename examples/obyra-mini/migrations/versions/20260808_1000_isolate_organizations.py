"""row-level security: each transaction sees one organisation"""

from alembic import op

revision = "isolate_organizations"
down_revision = "create_audit_log"

TENANT_TABLES = ["users", "projects", "budgets", "budget_items", "payments"]

# It fails closed. Never set, or '' (what remains of a SET LOCAL in a pooled connection): NULL, so no row.
# Anything that is no number: an error, so no row either.
OWN_ROWS = "organization_id = nullif(current_setting('app.current_org_id', true), '')::int"


def upgrade() -> None:
    for table in TENANT_TABLES:
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"CREATE POLICY tenant ON {table} USING ({OWN_ROWS}) WITH CHECK ({OWN_ROWS})")
    # With no policy for UPDATE and DELETE, an entry of the log stays as it was written.
    op.execute("ALTER TABLE audit_log ENABLE ROW LEVEL SECURITY")
    op.execute(f"CREATE POLICY tenant_reads ON audit_log FOR SELECT USING ({OWN_ROWS})")
    op.execute(f"CREATE POLICY tenant_appends ON audit_log FOR INSERT WITH CHECK ({OWN_ROWS})")


def downgrade() -> None:
    op.execute("DROP POLICY tenant_appends ON audit_log")
    op.execute("DROP POLICY tenant_reads ON audit_log")
    op.execute("ALTER TABLE audit_log DISABLE ROW LEVEL SECURITY")
    for table in reversed(TENANT_TABLES):
        op.execute(f"DROP POLICY tenant ON {table}")
        op.execute(f"ALTER TABLE {table} DISABLE ROW LEVEL SECURITY")
