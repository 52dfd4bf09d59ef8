"""Platform tokens as text: `kr_<id>_<secret><checksum>`. Pure, but for the randomness of `mint`.

The prefix lets secret scanners find a token, the checksum lets a log tell a typo from a forgery.
The checksum is no protection: what protects is the secret, of which only a SHA-256 is stored
(unkeyed and unsalted is enough for more than 190 random bits).
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import zlib
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

PREFIX: Final = b"kr_"
_DIGITS: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_ID_LENGTH: Final = 12
_SECRET_LENGTH: Final = 32  # 62 ** 32 > 2 ** 190
_CHECKSUM_LENGTH: Final = 6  # 62 ** 6 > 2 ** 32
_SHAPE: Final = re.compile(
    rb"kr_(?P<id>[0-9A-Za-z]{12})_(?P<secret>[0-9A-Za-z]{32})(?P<checksum>[0-9A-Za-z]{6})"
)


@dataclass(frozen=True, slots=True)
class ParsedToken:
    """A text of the right shape. `digest` is the SHA-256 of the whole text."""

    id: str
    digest: bytes = field(repr=False)


class Malformed(Enum):
    """Why a text is no token."""

    TYPO = "a token with a typo or a piece missing"
    NOT_A_TOKEN = "not a token"  # noqa: S105 - it says so itself


@dataclass(frozen=True, slots=True)
class Minted:
    """A new token: the text is shown once, the digest is stored."""

    id: str
    digest: bytes = field(repr=False)
    text: str = field(repr=False)


def mint() -> Minted:
    """A token that nobody has had before: 71 random bits of id, 190 of secret."""
    token_id = _random(_ID_LENGTH)
    body = f"kr_{token_id}_{_random(_SECRET_LENGTH)}"
    text = body + _checksum(body.encode())
    return Minted(token_id, _digest(text.encode()), text)


def parse(text: bytes) -> ParsedToken | Malformed:
    """What a presented text is, by its shape and checksum alone."""
    shape = _SHAPE.fullmatch(text)
    if shape is None:
        return Malformed.TYPO if looks_like_token(text) else Malformed.NOT_A_TOKEN
    if _checksum(text[:-_CHECKSUM_LENGTH]).encode() != shape["checksum"]:
        return Malformed.TYPO
    return ParsedToken(shape["id"].decode(), _digest(text))


def checked(body: bytes) -> bytes:
    """A body with its checksum behind it."""
    return body + _checksum(body).encode()


def checks(text: bytes) -> bool:
    """Whether a text ends with the checksum of what stands before."""
    return checked(text[:-_CHECKSUM_LENGTH]) == text


def looks_like_token(text: bytes) -> bool:
    """Whether this is meant as a platform token, right or wrong."""
    return text.startswith(PREFIX)


def matches(presented: bytes, stored: bytes) -> bool:
    """Compares two digests, bytes with bytes, in constant time."""
    return hmac.compare_digest(presented, stored)


def _random(length: int) -> str:
    return "".join(secrets.choice(_DIGITS) for _ in range(length))


def _digest(text: bytes) -> bytes:
    return hashlib.sha256(text).digest()


def _checksum(body: bytes) -> str:
    rest = zlib.crc32(body)
    digits = ""
    for _ in range(_CHECKSUM_LENGTH):
        rest, digit = divmod(rest, len(_DIGITS))
        digits = _DIGITS[digit] + digits
    return digits
