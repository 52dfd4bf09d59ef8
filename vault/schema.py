"""Brings a database to the schema of this release; Alembic is loaded only where it is needed."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection, inspect, text

from vault.errors import SchemaTooNew, StoreUnavailable

HEAD: Final = "0008"

MOVED: Final = "moved"
"""Where a database stands whose vault was moved to another one: no release knows it."""


def revision_of(connection: Connection) -> str | None:
    """The revision that a database stands at; None for an empty one. Raises StoreUnavailable."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    revision = connection.scalar(text("SELECT version_num FROM alembic_version"))
    return require_said(revision)


def require_said(revision: object) -> str:
    """Raises StoreUnavailable where a database with a vault doesn't say where it stands."""
    if not isinstance(revision, str):
        raise StoreUnavailable(
            "the vault's database does not say at which revision it stands: its table "
            "alembic_version has lost its row; restore the database from your backup"
        )
    return revision


def require_there(revision: object) -> None:
    """Raises StoreUnavailable where the vault was moved away."""
    if revision == MOVED:
        raise StoreUnavailable(
            "the vault was moved from this database to another one by keyrelay migrate; name that "
            "by vault.url, or take vault.url out for a file, as that command said"
        )


def require_ours(revision: object) -> None:
    """Raises SchemaTooNew where a newer release has taken the database over: what this one would
    write may lack something there."""
    require_there(require_said(revision))
    if revision != HEAD:
        raise SchemaTooNew(
            f"a newer keyrelay has brought the vault's database to revision {revision}; this one "
            "goes on reading it and changes nothing: replace it by the newer one"
        )


def migrate(connection: Connection) -> None:
    """Runs what is missing, inside the caller's transaction; raises SchemaTooNew."""
    from alembic import command  # noqa: PLC0415 - a start at head must not pay for it
    from alembic.config import Config  # noqa: PLC0415
    from alembic.script import ScriptDirectory  # noqa: PLC0415

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", "vault:migrations")
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    revision = revision_of(connection)
    require_there(revision)
    if revision is not None and revision not in known:
        raise SchemaTooNew(
            f"the vault's database stands at revision {revision}, which this release does not "
            "know; install the newer keyrelay that wrote it"
        )
    command.upgrade(config, HEAD)
