"""The tables of the vault as this release reads them; the migrations make them so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Dialect,
    Float,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

METADATA: Final = MetaData()


class Truth(Boolean):
    """0 or 1 in SQLite, which takes whatever is written: anything else is read as it is, so that
    the register does not know the row. PostgreSQL takes nothing else, and has a type of its own."""

    def result_processor(self, _dialect: Dialect, _type: object) -> Callable[[Any], Any]:
        """What a database says, as we read it."""
        return lambda said: bool(said) if said in (0, 1) else said


# One row: how often anything was changed, which master key wraps the data keys, where the audit log
# ends (the number of its last row, and that row's link), and what authenticates all but the key.
STATE: Final = Table(
    "vault_state",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("generation", Integer, nullable=False),
    Column("master_id", String(16)),
    Column("seal", LargeBinary),
    Column("audit_rows", Integer),
    Column("audit_link", LargeBinary),
    Column("register", LargeBinary),
)

# Names and marks of the rows of all other tables but the audit log's; `vault_state.register` is
# what stands for all pages.
REGISTER: Final = Table(
    "register",
    METADATA,
    Column("page", Integer, primary_key=True, autoincrement=False),
    Column("entries", LargeBinary, nullable=False),
)

# The highest number of a purpose is its current key; others stay only while rows are re-sealed.
DATA_KEYS: Final = Table(
    "data_keys",
    METADATA,
    Column("id", String(16), primary_key=True),
    Column("purpose", String(64), nullable=False),
    Column("number", Integer, nullable=False),
    Column("master_id", String(16), nullable=False),
    Column("wrapped", LargeBinary, nullable=False),
    Column("created_at", Float, nullable=False),
    UniqueConstraint("purpose", "number", name="uq_data_keys_purpose"),
)

# A removed key keeps its row, so that no version number is ever given twice to one name.
KEYS: Final = Table(
    "keys",
    METADATA,
    Column("tenant", String(64), primary_key=True),
    Column("service", String(64), primary_key=True),
    Column("alias", String(64), primary_key=True),
    Column("version", Integer, nullable=False),
    Column("first_version", Integer, nullable=False),
    Column("live", Truth, nullable=False),
    Column("is_default", Truth, nullable=False),
    Column("added", Integer, nullable=False),
    Column("added_at", Float, nullable=False),
)

# A retired version keeps its fingerprint for a while and loses its sealed value at once.
KEY_VERSIONS: Final = Table(
    "key_versions",
    METADATA,
    Column("tenant", String(64), primary_key=True),
    Column("service", String(64), primary_key=True),
    Column("alias", String(64), primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("sealed", LargeBinary),
    Column("data_key", String(16), ForeignKey("data_keys.id")),
    Column("recognised_by", Text, nullable=False),
    Column("masked", Text, nullable=False),
    Column("hosts", Text, nullable=False),
    Column("fingerprint", LargeBinary, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("retired_at", Float),
    ForeignKeyConstraint(
        ["tenant", "service", "alias"], ["keys.tenant", "keys.service", "keys.alias"]
    ),
    Index("ix_key_versions_fingerprint", "fingerprint"),
    Index("ix_key_versions_data_key", "data_key"),
)

TOKENS: Final = Table(
    "tokens",
    METADATA,
    Column("id", String(12), primary_key=True),
    Column("tenant", String(64), nullable=False),
    Column("name", String(64), nullable=False),
    Column("role", String(16), nullable=False),
    Column("services", Text),
    Column("key_aliases", Text, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("expires_at", Float),
    Column("revoked_at", Float),
    Column("limits", Text),
    Column("upstream_limits", Text),
    Column("budget", Integer),
    Column("hosts", Text),
    Column("paths", Text),
    Column("methods", Text),
    Column("origins", Text),
    Column("calls", BigInteger),
    Index("ix_tokens_name", "tenant", "name"),
)

BACKENDS: Final = Table(
    "backends",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("tenant", String(64), nullable=False),
    Column("service", String(64), nullable=False),
    Column("scheme", String(5), nullable=False),
    Column("host", String(255), nullable=False),
    Column("port", Integer, nullable=False),
    Column("prefix", Text, nullable=False),
    UniqueConstraint(
        "tenant", "service", "scheme", "host", "port", "prefix", name="uq_backends_binding"
    ),
)

# An empty tenant or service stands for every one.
PURGES: Final = Table(
    "purges",
    METADATA,
    Column("tenant", String(64), primary_key=True),
    Column("service", String(64), primary_key=True),
    Column("at", Float, nullable=False),
)

AUDIT: Final = Table(
    "audit",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("at", Float, nullable=False),
    Column("actor", Text, nullable=False),
    Column("action", String(64), nullable=False),
    Column("tenant", String(64), nullable=False),
    Column("subject", Text, nullable=False),
    Column("link", LargeBinary),
)
