"""What a token may do in a time: limits of all calls, of upstream calls, and a monthly budget."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("tokens", sa.Column("limits", sa.Text))
    op.add_column("tokens", sa.Column("upstream_limits", sa.Text))
    op.add_column("tokens", sa.Column("budget", sa.Integer))
