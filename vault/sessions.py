"""Connections to a PostgreSQL server, also by way of a pooler that lends each for one transaction.

There nothing outlasts a transaction: no setting, no prepared statement, no lock. Such a pooler is
noticed by itself: the number that it gives a connection is not that of the server's process.
"""

from __future__ import annotations

from typing import Any, Final
from weakref import WeakSet

import asyncpg
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from vault.errors import Invalid

CONNECT_SECONDS: Final = 5.0
STATEMENT_SECONDS: Final = 30.0
"""How long one statement may take: the largest reads every row of a table."""

_NAME: Final = {"application_name": "keyrelay"}
_LASTING: Final = {"tcp_keepalives_idle": "30"}
_BOUNDS: Final = {
    "statement_timeout": f"{STATEMENT_SECONDS:.0f}s",
    "lock_timeout": "20s",
    # Whoever stands still, or is gone, inside a transaction must not hold up all others.
    "idle_in_transaction_session_timeout": "60s",
}
_DURABLE: Final = (
    "set_config('synchronous_commit', CASE current_setting('synchronous_commit') "
    "WHEN 'off' THEN 'on' ELSE current_setting('synchronous_commit') END, {})"
)
_BEGIN: Final = text(
    f"SELECT {_DURABLE.format('true')}, "
    + ", ".join(f"set_config('{name}', '{value}', true)" for name, value in _BOUNDS.items())
)
_OWN: Final = "SELECT FROM pg_backend_pid() AS own WHERE own = {}"

UNREADABLE: Final = (
    "the vault's URL can't be read; try postgresql://USER@HOST/DATABASE, and write the signs "
    "@ / ? # % of a password as %40 %2F %3F %23 %25"
)
_NO_AUTHORITY: Final = (
    "the sslmode of the vault's URL asks whose the server is, and no certificate is there to tell "
    "by; add sslrootcert=FILE, with that of the authority which vouches for the server"
)


class Sessions:
    """Connections to one server. `lent`: a pooler stands between."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._made: WeakSet[Any] = WeakSet()
        self.lent = False

    async def connect(self) -> Any:
        """asyncpg's; raises what that does, and Invalid."""
        if not self.lent:
            made = await self._own()
            if made is not None:
                return made
            self.lent = True
        return await self._connected(_NAME, statement_cache_size=0)

    async def begin(self, connection: AsyncConnection) -> None:
        """First in a transaction: its bounds, where the session can't have them."""
        if self.lent:
            await connection.execute(_BEGIN)

    def break_off(self) -> None:
        """Ends all: to take leave of a server that is silent takes long."""
        for connection in list(self._made):
            connection.terminate()

    async def _own(self) -> Any:
        """A session that is ours alone; None where there is none to be had."""
        try:
            made = await self._connected({**_NAME, **_LASTING, **_BOUNDS})
        except asyncpg.ProtocolViolationError as error:
            if "startup parameter" in str(error):
                return None
            raise
        own = _OWN.format(made.get_server_pid())
        if await made.execute(f"SELECT {_DURABLE.format('false')}; {own}") == "SELECT 1":
            return made
        await made.close()
        return None

    async def _connected(self, settings: dict[str, str], **more: int) -> Any:
        try:
            made = await asyncpg.connect(
                self._dsn,
                timeout=CONNECT_SECONDS,
                command_timeout=STATEMENT_SECONDS,
                server_settings=settings,
                **more,
            )
        except OSError:
            raise  # also a certificate that is not accepted, which is a ValueError as well
        except ValueError as error:
            unknown = "root certificate" in str(error)
            raise Invalid(_NO_AUTHORITY if unknown else UNREADABLE) from error
        self._made.add(made)
        return made
