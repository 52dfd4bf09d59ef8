"""What is known of one call once it is over, for those who count and write down; no secret in it.

Observers get a `CallRecord` each: they must not wait. What they raise is logged and harms nobody.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

from proxy.grant import Client, Grant
from proxy.messages import Fields
from proxy.trace import Trace


class Tokens(NamedTuple):
    """What an answer says that it used, in the provider's tokens; `model` by its own name.

    `cached`: those of `input` that the provider had at hand and charges less for.
    """

    model: str
    input: int
    output: int
    cached: int = 0


class Meter(Protocol):
    """Keeps what little of an answer's body tells how much was used. `size`: octets it holds."""

    size: int

    def feed(self, octets: bytes) -> None:
        """The next octets, as they are passed on."""
        ...

    def tokens(self) -> Tokens | None:
        """What was used, in all; takes its time when first asked: not for the event loop."""
        ...


class CallRecord(NamedTuple):
    """One call. Sizes in octets of bodies, times in seconds, `began` in Unix seconds.

    `token`: the name of the token, or `key:<service>/<alias>`; empty where nobody was recognised,
    and so is what follows from that. `status` 0: the caller hung up before any answer. `code`: that
    of our own error, or empty. `verdict`: `hit`, `collapsed` (joined another call's flight),
    `stored`, `miss` (looked up, not stored), `bypass`; empty: no answer of cache or upstream.
    `cut`: the transfer was broken after its start, by whomever. `key`: the alias of the key of ours
    that the call carries; empty: none. `answered`: seconds until the header of an answer went out.
    `trace`: where calls are traced. `why`: what our own error does not tell the caller; or empty.
    `address`: the caller's, or the one that a trusted proxy calls for.
    """

    id: str
    began: float
    tenant: str
    token: str
    token_id: str
    service: str
    host: str
    method: str
    status: int
    code: str
    verdict: str
    cut: bool
    received: int
    sent: int
    seconds: float
    waited: float
    upstream_seconds: float | None
    meter: Meter | None
    key: str = ""
    answered: float | None = None
    trace: Trace | None = None
    why: str = ""
    address: str = ""


Observer = Callable[[CallRecord], None]


Metering = Callable[[int, Fields], Meter | None]
"""From an answer's status and fields to what reads along; None: nothing to read."""


def unmetered(_status: int, _fields: Fields) -> Meter | None:
    """Reads nothing."""
    return None


class Standing(Protocol):
    """How the limits of one call stand."""

    def lines(self) -> bytes:
        """As lines of its answer's header, with the names of STANDING; to be asked for once, when
        that is written."""
        ...


STANDING: Final = frozenset(
    {
        b"ratelimit-policy",
        b"ratelimit",
        b"x-ratelimit-limit",
        b"x-ratelimit-remaining",
        b"x-ratelimit-reset",
    }
)
"""The fields that tell how limits stand."""


class Account:
    """What the spine notes of one call on its way, for its record; nothing decides by it.

    `limited`: the limits that hold for the call, if any do.
    """

    __slots__ = ("client", "grant", "limited")

    def __init__(self) -> None:
        self.client: Client | None = None
        self.grant: Grant | None = None
        self.limited: Standing | None = None

    @property
    def standing(self) -> bytes:
        """Lines that tell the caller how much of its limits is left, for every answer's header."""
        return b"" if self.limited is None else self.limited.lines()
