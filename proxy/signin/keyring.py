"""The keys of one issuer as they are known: fetched in good time, once for all who wait.

A token that names an unknown key has them fetched again, but not often, however many such come.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING, Final

from proxy.causes import frames, lineage
from proxy.clock import Clock
from proxy.config.signin import IssuerEntry
from proxy.errors import Unavailable
from proxy.signin.fetching import Failed, Fetches
from proxy.signin.jwt import Unreadable

if TYPE_CHECKING:
    from proxy.signin.keyset import Key, KeySet

FRESH_SECONDS: Final = 600.0
"""After so long they are fetched again, while they go on being used."""

STALE_SECONDS: Final = 24 * 3600.0
"""For so long they are used while the issuer does not answer."""

AGAIN_SECONDS: Final = 30.0
FIRST_SECONDS: Final = 5.0
"""From one fetch to the next at least; and as long as there are no keys at all."""

_log = logging.getLogger("keyrelay.signin")


class Keyring:
    """`changed` is told when a key is gone, or all are too old: what they signed is over."""

    def __init__(
        self, entry: IssuerEntry, fetcher: Fetches, clock: Clock, changed: Callable[[], None]
    ) -> None:
        self._entry = entry
        self._fetcher = fetcher
        self._clock = clock
        self._changed = changed
        self._keys: KeySet | None = None
        self._got_at = self._asked_at = -inf
        self._fetching: asyncio.Task[None] | None = None
        self._told = ""

    async def find(self, alg: str, kid: str | None) -> Key | None:
        """The key that a token names; None: there is none. Raises Unavailable without any."""
        found = self._look(alg, kid)
        if found is None and (self._fetching is not None or self._may_ask()):
            await self.refresh()
            found = self._look(alg, kid)
        if found is None and self._known() is None:
            raise Unavailable(
                "The keys of the token's issuer can't be fetched now; try again.",
                retry_after=int(FIRST_SECONDS),
            )
        return found

    async def refresh(self) -> None:
        """Fetches the keys; who comes while that is under way waits for the same."""
        if self._fetching is None:
            self._asked_at = self._clock.monotonic()
            self._fetching = asyncio.create_task(self._fetch())
        await asyncio.wait((self._fetching,))  # who hangs up ends nothing that others wait for

    async def refresh_if_due(self) -> None:
        """The same if they are no longer fresh. Keys that are too old verify nothing, and what they
        have verified is good no more."""
        if self._keys is not None and self._known() is None:
            self._keys = None
            self._changed()
        if self._clock.monotonic() - self._got_at >= FRESH_SECONDS and self._may_ask():
            await self.refresh()

    @property
    def busy(self) -> bool:
        """Whether a fetch is under way."""
        return self._fetching is not None

    async def close(self) -> None:
        """Ends a fetch that is under way."""
        fetching, self._fetching = self._fetching, None
        if fetching is not None:
            fetching.cancel()
            await asyncio.wait((fetching,))

    def _known(self) -> KeySet | None:
        """The keys, if they are not too old."""
        old = self._clock.monotonic() - self._got_at >= STALE_SECONDS
        return None if old else self._keys

    def _look(self, alg: str, kid: str | None) -> Key | None:
        known = self._known()
        return None if known is None else known.find(alg, kid)

    def _may_ask(self) -> bool:
        pause = FIRST_SECONDS if self._known() is None else AGAIN_SECONDS
        return self._clock.monotonic() - self._asked_at >= pause

    async def _fetch(self) -> None:
        # Imported here: where nobody signs in the library is not loaded.
        from proxy.signin.keyset import parse_keys  # noqa: PLC0415

        trouble, place = "", {}
        try:
            octets = await self._fetcher.keys(self._entry)
            self._take(await asyncio.to_thread(parse_keys, octets))
        except (Failed, Unreadable) as error:
            trouble = str(error)
        except Exception as error:
            trouble, place = f"unexpected {lineage(error)}", {"at": frames(error)}
        finally:
            self._fetching = None
        if trouble and trouble != self._told:
            name = self._entry.name
            _log.warning("keys of the issuer %s not fetched: %s", name, trouble, extra=place)
        self._told = trouble

    def _take(self, keys: KeySet) -> None:
        if not len(keys):
            raise Failed("none of its keys can be used")
        before, self._keys = self._keys, keys
        self._got_at = self._clock.monotonic()
        if before is not None and not before.marks <= keys.marks:
            self._changed()
