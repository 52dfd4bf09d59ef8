"""The text of URIs (RFC 3986), alike for calls and destinations: escapes, dot segments. Pure."""

from __future__ import annotations

import re
from urllib.parse import quote, unquote_to_bytes

_MALFORMED = re.compile(r"%(?![0-9A-Fa-f]{2})")
_CONTROL = re.compile(r"%(?:[01][0-9A-Fa-f]|7[Ff]|[Cc]2%[89][0-9A-Fa-f])")
_DOT_SEGMENT = re.compile(
    r"(?:\A|[/\\]|%2F|%5C)(?:\.|%2E){1,2}(?=\Z|[/\\]|%2F|%5C)", re.IGNORECASE | re.ASCII
)
_UNFIT = re.compile(r"[^\x21-\x7e]")


def decode(text: str) -> str:
    """Percent-decoded exactly once, as strict UTF-8; `+` stays a plus.

    Raises UnicodeDecodeError.
    """
    return unquote_to_bytes(text).decode()


def encode(text: str) -> str:
    """Spaces and characters outside ASCII percent-encoded as UTF-8, all else as it is."""
    return _UNFIT.sub(lambda match: quote(match[0]), text)


def flaw(path: str, query: str) -> str | None:
    """What makes a path and a query unfit to be sent, in words that fit behind "holds"; or None.

    In a query the encoded line break is data that an API may be meant to get; in a path no control
    character is, and nowhere a NUL. An encoded slash separates dot segments too: some servers
    decode before they resolve.
    """
    if "%" in path or "%" in query:
        if _MALFORMED.search(path) or _MALFORMED.search(query):
            return "a % without two hexadecimal digits behind it (a % itself is written %25)"
        if "%00" in query or _CONTROL.search(path):
            return "an encoded control character"
    if "." in path or "%" in path:
        return "a dot segment" if _DOT_SEGMENT.search(path) else None
    return None
