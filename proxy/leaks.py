"""Finds platform tokens where none may stand: in what would be forwarded. Pure."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote_to_bytes

# The form of contract section 3, whoever owns the token: `kr_<id>_<secret><checksum>`.
_TOKEN: Final = re.compile(rb"kr_[0-9A-Za-z]{8,}_[0-9A-Za-z]{32,}")


def holds_token(octets: bytes, other: bytes = b"") -> bool:
    """Whether a platform token stands in them, or the `other`, as it is or percent-encoded once."""
    if _holds(octets, other):
        return True
    return b"%" in octets and _holds(unquote_to_bytes(octets), other)


def _holds(octets: bytes, other: bytes) -> bool:
    return _TOKEN.search(octets) is not None or (other != b"" and other in octets)
