"""Where and how a token may call: hosts, path prefixes, methods, origins of pages."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    for name in ("hosts", "paths", "methods", "origins"):
        op.add_column("tokens", sa.Column(name, sa.Text))
