"""Whose request a front proxy passes on: the address in X-Forwarded-For or Forwarded; pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final

from proxy.addresses import Address
from proxy.messages import Fields, values

Networks = tuple[IPv4Network | IPv6Network, ...]

_TOKEN: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105 - of RFC 9110, no credential
_PAIR: Final = rf'{_TOKEN}=(?:{_TOKEN}|"[^"\\,;]*")'
_ELEMENT: Final = re.compile(rf"{_PAIR}(?:[ \t]*;[ \t]*{_PAIR})*")
_FOR: Final = re.compile(r'(?:^|;)[ \t]*for="?([^";]+)', re.IGNORECASE)
_PLACE: Final = re.compile(r"\[([0-9A-Fa-f:.]+)\](?::[0-9]{1,5})?|([0-9.]+)(?::[0-9]{1,5})?")


def address_of(text: str) -> Address | None:
    """An address as a socket or a proxy writes it, perhaps with a port; None: it is none. One of
    IPv4 in the clothes of IPv6 counts as what it is."""
    found = _PLACE.fullmatch(text)
    try:
        address = ip_address((found[1] or found[2]) if found else text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def within(address: Address | None, networks: Networks) -> bool:
    """Whether the address is of one of them."""
    return address is not None and any(address in one for one in networks)


def caller_behind(fields: Fields, trusted: Networks) -> Address | None:
    """The right-most address that is not trusted, of a request that a trusted peer passes on; the
    left-most where all are. Only what trusted proxies wrote is read: whatever stands left of it,
    anybody may have sent. None: nobody is named, or not clearly.

    A proxy writes one of the two fields and may pass on the other as it came. So where both are
    there, they have to say the same.
    """
    found = [
        _nearest(chain, trusted)
        for chain in (_by_lists(fields), _by_elements(fields))
        if chain is not None
    ]
    return found[0] if found and all(one == found[0] for one in found) else None


def names_callers(fields: Fields) -> bool:
    """Whether the peer says whose request it is, in whatever words."""
    return any(name in (b"x-forwarded-for", b"forwarded") for name, _ in fields)


def _nearest(chain: Iterable[str], trusted: Networks) -> Address | None:
    address = None
    for text in chain:
        address = address_of(text)
        if not within(address, trusted):
            break
    return address


def _by_lists(fields: Fields) -> Iterator[str] | None:
    lists = values(fields, b"x-forwarded-for")
    return _from_right(lists) if lists else None


def _by_elements(fields: Fields) -> Iterator[str] | None:
    """RFC 7239; an element that is malformed names nobody."""
    lists = values(fields, b"forwarded")
    return map(_for, _from_right(lists)) if lists else None


def _for(element: str) -> str:
    found = _FOR.search(element) if _ELEMENT.fullmatch(element) else None
    return found[1] if found else ""


def _from_right(lists: list[bytes]) -> Iterator[str]:
    parts = b",".join(lists).decode("latin-1").split(",")
    return (part.strip(" \t") for part in reversed(parts))
