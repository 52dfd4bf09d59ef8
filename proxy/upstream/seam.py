"""The seam between cache and upstream: whoever can send a call for a grant is an Upstream."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Protocol

from proxy.call import Call
from proxy.grant import Grant
from proxy.messages import RequestBody, Response


class Upstream(Protocol):
    """Sends a call; the response lives as long as the context."""

    def send(
        self, call: Call, grant: Grant, body: RequestBody
    ) -> AbstractAsyncContextManager[Response]:
        """Enter: the header has arrived. Exit: the connection is back or closed, whatever happened.

        `body` is given apart from `call`, because a cache that keyed it has read it already.
        Raises a RelayError of the 5xx family.
        """
        ...
