"""What every row should be: marks on pages, and what stands for all pages."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.create_table(
        "register",
        sa.Column("page", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("entries", sa.LargeBinary, nullable=False),
    )
    op.add_column("vault_state", sa.Column("register", sa.LargeBinary))
