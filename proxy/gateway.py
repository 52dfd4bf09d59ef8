"""The spine: every call, step by step, in reading order."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from proxy.authentication import Authenticator
from proxy.authorization import Authorizer
from proxy.bounds import Fetching
from proxy.call import Call
from proxy.grant import Client, Grant
from proxy.limits.limits import Limits
from proxy.messages import Response
from proxy.record import Account
from proxy.routing import Router


class Remembered(Protocol):
    """The grants of calls whose header was the same to the last octet."""

    def grant(self, call: Call) -> Grant | None:
        """The grant, unless anything has changed that it depends on."""
        ...

    def basis(self) -> object:
        """All that a grant depends on beside the call."""
        ...

    def keep(self, call: Call, client: Client, grant: Grant, basis: object) -> None:
        """Remembers a grant, if it may be."""
        ...


@dataclass(frozen=True, slots=True)
class Gateway:
    """Takes a call, gives its response; releases what was opened once the body has been relayed."""

    authenticator: Authenticator
    router: Router
    authorizer: Authorizer
    cache: Fetching
    remembered: Remembered
    limits: Limits

    async def exchange(self, call: Call, account: Account) -> AbstractAsyncContextManager[Response]:
        """The response of the provider, the backend or the cache; both raise RelayError."""
        account.grant = grant = self.remembered.grant(call) or await self._admit(call, account)
        await self.limits.check(grant, account)
        return self.cache.fetch(call, grant)

    async def _admit(self, call: Call, account: Account) -> Grant:
        basis = self.remembered.basis()
        account.client = client = await self.authenticator.authenticate(call)
        route = self.router.route(call)
        grant = self.authorizer.authorize(client, call, route)
        self.remembered.keep(call, client, grant, basis)
        return grant
