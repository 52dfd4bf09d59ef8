"""Brings a database to the schema of this release; Alembic is loaded only where it is needed."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection, inspect, text

from vault.errors import SchemaTooNew

HEAD: Final = "0007"


def revision_of(connection: Connection) -> str | None:
    """The revision that a database stands at; None for an empty one."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    revision: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
    return revision


def migrate(connection: Connection) -> None:
    """Runs what is missing, inside the caller's transaction; raises SchemaTooNew."""
    from alembic import command  # noqa: PLC0415 - a start at head must not pay for it
    from alembic.config import Config  # noqa: PLC0415
    from alembic.script import ScriptDirectory  # noqa: PLC0415

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", "vault:migrations")
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    revision = revision_of(connection)
    if revision is not None and revision not in known:
        raise SchemaTooNew(
            f"the vault's database stands at revision {revision}, which this release does not "
            "know; install the newer keyrelay that wrote it"
        )
    command.upgrade(config, HEAD)
