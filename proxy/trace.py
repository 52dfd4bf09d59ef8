"""One call's place in a trace: W3C Trace Context in and out, and the moments on the call's way."""

from __future__ import annotations

import re
import secrets
from typing import Final

PARENT_FIELD: Final = b"traceparent"
STATE_FIELD: Final = b"tracestate"

# Trace Context section 3.2.2. A later version may go on behind the flags; nothing that could be a
# token, because the field is left out of what tells one header from another.
_PARENT: Final = re.compile(
    rb"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})"
    rb"(-[0-9a-z.-]{0,64})?"
)
_SAMPLED: Final = 1
_RANGE: Final = 1 << 56


def is_parent(text: bytes) -> bool:
    """Whether it is a traceparent that a trace can be continued from."""
    found = _PARENT.fullmatch(text)
    return found is not None and (found[5] is None or found[1] != b"00")


class Trace:
    """Ids as hexadecimal digits. `parent`: the caller's span, empty for none; `sampled`: somebody
    will look at it.

    The moments are those of the monotonic clock; None: not come to that, or not over. `began`: the
    call; `asked`, `found`: the cache; `queued`, `admitted`: the queue; `sent`, `answered`, `ended`:
    the upstream, to the header of its answer and to the end of that; `status`: its answer's.
    """

    __slots__ = (
        "admitted",
        "answered",
        "asked",
        "began",
        "ended",
        "found",
        "parent",
        "queued",
        "sampled",
        "sent",
        "span",
        "status",
        "trace",
        "upstream",
    )

    asked: float | None
    found: float | None
    queued: float | None
    admitted: float | None
    sent: float | None
    answered: float | None
    ended: float | None

    def __init__(self, caller: bytes, began: float, ratio: float = 1.0) -> None:
        """Continues the caller's trace, or begins one; `ratio`: how many of those are sampled."""
        self.began = began
        self.asked = self.found = self.queued = self.admitted = None
        self.sent = self.answered = self.ended = None
        self.status = 0
        if caller:
            fresh = secrets.token_hex(16)
            self.trace, self.parent = caller[3:35].decode(), caller[36:52].decode()
            self.sampled = bool(int(caller[53:55], 16) & _SAMPLED)
        else:
            fresh = secrets.token_hex(32)
            self.trace, self.parent = fresh[32:], ""
            self.sampled = int(fresh[-14:], 16) < ratio * _RANGE
        self.span, self.upstream = fresh[:16], fresh[16:32]

    @property
    def onward(self) -> bytes:
        """The traceparent of what is sent upstream: our span of that is its parent."""
        return b"00-%b-%b-%02x" % (self.trace.encode(), self.upstream.encode(), self.sampled)
