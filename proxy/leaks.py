"""Finds platform tokens where none may stand: in what would be forwarded. Pure."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote_to_bytes

# The form of contract section 3, whoever owns the token: `kr_<id>_<secret><checksum>`.
_TOKEN: Final = re.compile(rb"kr_[0-9A-Za-z]{8,}_[0-9A-Za-z]{32,}")


def holds_token(octets: bytes) -> bool:
    """Whether a platform token stands in them, as it is or percent-encoded once."""
    if _TOKEN.search(octets):
        return True
    return b"%" in octets and _TOKEN.search(unquote_to_bytes(octets)) is not None
