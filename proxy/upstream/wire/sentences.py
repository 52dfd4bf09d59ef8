"""What a caller is told when a call fails on its way or in its answer; words, no behaviour."""

from __future__ import annotations

from typing import Final

TOO_MANY_CALLS: Final = "Too many calls are under way; try again in a moment."
CLOSING: Final = "keyrelay is shutting down; try again in a moment."

NOT_CONNECTED_IN_TIME: Final = (
    "The destination could not be connected to in time; try again, or check that it can be reached."
)
TLS_FAILED: Final = (
    "TLS with the destination failed: its certificate or protocol "
    "is not acceptable. A private authority can be trusted with upstream_ca."
)

NOT_SENDABLE: Final = "The request can't be sent as HTTP/1.1; check its method and header fields."
WRONG_LENGTH: Final = "The request body is not as long as its Content-Length says."
NOT_TAKEN_IN_TIME: Final = "The destination did not take the request in time."

NOT_ANSWERED_IN_TIME: Final = "The destination did not answer in time."
NOT_ANSWERED: Final = "The destination closed the connection without an answer; try again."
NOT_HTTP: Final = "The destination's answer is not valid HTTP."
NOT_ONE_ANSWER: Final = "The destination's answer does not end where it says that it does."
HEADER_TOO_LARGE: Final = "The header of the destination's answer is too large."
TOO_MANY_INTERIM: Final = "The destination sends one interim answer after the other."
SWITCHED: Final = "The destination switched to a protocol that nobody asked for."

SILENT: Final = "The destination fell silent in its answer."
CUT: Final = "The destination's answer was cut."
OVERDUE: Final = "The call took longer than it may."
