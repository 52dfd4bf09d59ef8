"""What links each row of the audit log to the one before it, and where the log ends."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.add_column("audit", sa.Column("link", sa.LargeBinary))
    op.add_column("vault_state", sa.Column("audit_rows", sa.Integer))
    op.add_column("vault_state", sa.Column("audit_link", sa.LargeBinary))
