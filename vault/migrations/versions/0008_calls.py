"""How many calls a token may make in all; and a budget may be as large on PostgreSQL too, where a
column of `Integer` holds 32 bits."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.add_column("tokens", sa.Column("calls", sa.BigInteger))
    if op.get_bind().dialect.name == "postgresql":
        op.alter_column("tokens", "budget", type_=sa.BigInteger)
