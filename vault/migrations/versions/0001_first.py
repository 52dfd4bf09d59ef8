"""The first tables."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    _state()
    _data_keys()
    _keys()
    _key_versions()
    _tokens()
    _backends()
    _purges()
    _audit()


def _state() -> None:
    state = op.create_table(
        "vault_state",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("generation", sa.Integer, nullable=False),
        sa.Column("master_id", sa.String(16)),
    )
    op.bulk_insert(state, [{"id": 1, "generation": 0, "master_id": None}])


def _data_keys() -> None:
    op.create_table(
        "data_keys",
        sa.Column("id", sa.String(16), primary_key=True),
        sa.Column("purpose", sa.String(64), nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("master_id", sa.String(16), nullable=False),
        sa.Column("wrapped", sa.LargeBinary, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.UniqueConstraint("purpose", "number", name="uq_data_keys_purpose"),
    )


def _keys() -> None:
    op.create_table(
        "keys",
        sa.Column("tenant", sa.String(64), primary_key=True),
        sa.Column("service", sa.String(64), primary_key=True),
        sa.Column("alias", sa.String(64), primary_key=True),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("first_version", sa.Integer, nullable=False),
        sa.Column("live", sa.Boolean, nullable=False),
        sa.Column("is_default", sa.Boolean, nullable=False),
        sa.Column("added", sa.Integer, nullable=False),
        sa.Column("added_at", sa.Float, nullable=False),
    )


def _key_versions() -> None:
    op.create_table(
        "key_versions",
        sa.Column("tenant", sa.String(64), primary_key=True),
        sa.Column("service", sa.String(64), primary_key=True),
        sa.Column("alias", sa.String(64), primary_key=True),
        sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("sealed", sa.LargeBinary),
        sa.Column("data_key", sa.String(16), sa.ForeignKey("data_keys.id")),
        sa.Column("recognised_by", sa.Text, nullable=False),
        sa.Column("masked", sa.Text, nullable=False),
        sa.Column("hosts", sa.Text, nullable=False),
        sa.Column("fingerprint", sa.LargeBinary, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("retired_at", sa.Float),
        sa.ForeignKeyConstraint(
            ["tenant", "service", "alias"], ["keys.tenant", "keys.service", "keys.alias"]
        ),
    )
    op.create_index("ix_key_versions_fingerprint", "key_versions", ["fingerprint"])
    op.create_index("ix_key_versions_data_key", "key_versions", ["data_key"])


def _tokens() -> None:
    op.create_table(
        "tokens",
        sa.Column("id", sa.String(12), primary_key=True),
        sa.Column("tenant", sa.String(64), nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("services", sa.Text),
        sa.Column("key_aliases", sa.Text, nullable=False),
        sa.Column("digest", sa.LargeBinary, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("expires_at", sa.Float),
        sa.Column("revoked_at", sa.Float),
    )
    op.create_index("ix_tokens_name", "tokens", ["tenant", "name"])


def _backends() -> None:
    op.create_table(
        "backends",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("tenant", sa.String(64), nullable=False),
        sa.Column("service", sa.String(64), nullable=False),
        sa.Column("scheme", sa.String(5), nullable=False),
        sa.Column("host", sa.String(255), nullable=False),
        sa.Column("port", sa.Integer, nullable=False),
        sa.Column("prefix", sa.Text, nullable=False),
        sa.UniqueConstraint(
            "tenant", "service", "scheme", "host", "port", "prefix", name="uq_backends_binding"
        ),
    )


def _purges() -> None:
    op.create_table(
        "purges",
        sa.Column("tenant", sa.String(64), primary_key=True),
        sa.Column("service", sa.String(64), primary_key=True),
        sa.Column("at", sa.Float, nullable=False),
    )


def _audit() -> None:
    op.create_table(
        "audit",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("action", sa.String(64), nullable=False),
        sa.Column("tenant", sa.String(64), nullable=False),
        sa.Column("subject", sa.Text, nullable=False),
    )
