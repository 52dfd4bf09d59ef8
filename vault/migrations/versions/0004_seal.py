"""What authenticates how often the vault was changed."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.add_column("vault_state", sa.Column("seal", sa.LargeBinary))
