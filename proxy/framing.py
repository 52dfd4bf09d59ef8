"""What the parser lets through and two readers could read differently (RFC 9112), and how much of a
header is read; pure."""

from __future__ import annotations

import re
from typing import Final

from proxy.errors import BadRequest, HeaderTooLarge
from proxy.messages import Fields, values

MAX_TARGET: Final = 16 * 1024
MAX_HEADER: Final = 64 * 1024
MAX_FIELDS: Final = 100

_HOST: Final = re.compile(
    rb"(?:[A-Za-z0-9._~!$&'()*+;=%-]+|\[[A-Za-z0-9:.%_~-]+\])(?::[0-9]{0,5})?"
)
"""A name or an address, and perhaps a port (RFC 3986 section 3.2.2); a comma would be a list."""


def check_framing(version: str, target: bytes, fields: Fields) -> None:
    """Raises BadRequest; `fields` with names in lower case."""
    if version not in ("1.0", "1.1"):
        raise BadRequest("Send HTTP/1.1.")
    names = [name for name, _ in fields]
    if b"transfer-encoding" in names:
        _check_coding(version, values(fields, b"transfer-encoding"))
    if b"host" in names or version == "1.1":
        _check_host(target, values(fields, b"host"))


def too_large() -> HeaderTooLarge:
    """There are more fields, or octets of them, than are read."""
    text = f"Keep the request header below {MAX_FIELDS} fields and {MAX_HEADER} octets."
    return HeaderTooLarge(text)


def _check_coding(version: str, codings: list[bytes]) -> None:
    if version == "1.0" or [one.lower() for one in codings] != [b"chunked"]:
        raise BadRequest("Send no Transfer-Encoding but one chunked, in HTTP/1.1.")


def _check_host(target: bytes, hosts: list[bytes]) -> None:
    """One, well-formed (RFC 9112 section 3.2), and the one that an absolute target names: whoever
    stands before us may have gone by the other."""
    if len(hosts) != 1 or not _HOST.fullmatch(hosts[0]):
        raise BadRequest("Send one Host field, with a name or an address.")
    if target.startswith(b"/"):
        return
    scheme, found, rest = target.partition(b"://")
    if found and b"/" not in scheme and _authority(rest).lower() != hosts[0].lower():
        raise BadRequest("Send the same host in the request target and in Host.")


def _authority(rest: bytes) -> bytes:
    return re.split(rb"[/?#]", rest, maxsplit=1)[0]
