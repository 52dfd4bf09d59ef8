"""When each key and each token was last used, since the start: an Observer, bounded, in memory."""

from __future__ import annotations

from typing import Final

from proxy.memo import bounded_put
from proxy.record import CallRecord

MOST: Final = 65_536


class LastUse:
    """Unix seconds at which the newest call began."""

    def __init__(self) -> None:
        self._keys: dict[tuple[str, str, str], float] = {}
        self._tokens: dict[str, float] = {}

    def observe(self, record: CallRecord) -> None:
        """One call is over."""
        if record.key:
            name = record.tenant, record.service, record.key
            bounded_put(self._keys, name, record.began, MOST)
        if record.token_id:
            bounded_put(self._tokens, record.token_id, record.began, MOST)

    def of_key(self, tenant: str, service: str, alias: str) -> float | None:
        """None: not since the start."""
        return self._keys.get((tenant, service, alias))

    def of_token(self, token_id: str) -> float | None:
        """None: not since the start."""
        return self._tokens.get(token_id)
