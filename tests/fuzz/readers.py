"""How two other parsers read a URL: Ada (WHATWG, as in browsers and Node) and rfc3986."""

from __future__ import annotations

from ipaddress import ip_address
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

import can_ada
import rfc3986
from rfc3986.exceptions import RFC3986Exception

from proxy.destinations import DEFAULT_PORTS, Target, parse_destination
from proxy.errors import BadDestination


class Meaning(NamedTuple):
    """What a server makes of a URL. Path and query are decoded piece by piece: a parser may write
    a character as an escape, but may not move, drop or join a segment or a parameter."""

    scheme: str
    host: str
    port: int
    path: tuple[bytes, ...]
    query: tuple[bytes, ...]


class Comparison(NamedTuple):
    """Of one URL. `refused`: the others that don't read at all what we read."""

    target: Target | None
    refused: tuple[str, ...] = ()
    differing: tuple[str, ...] = ()


def compare(url: str) -> Comparison:
    """Our reading beside that of the others; nothing to compare where we refuse."""
    try:
        target = parse_destination(url)
    except BadDestination:
        return Comparison(None)
    ours = meaning(target.scheme, target.host, target.port, target.path, target.query)
    refused, differing = [], []
    for name, theirs in (
        ("ada, as written", by_ada(url)),
        ("ada, as sent", by_ada(target.url)),
        ("rfc3986, as written", by_rfc3986(url) if url.isascii() else ours),
        ("rfc3986, as sent", by_rfc3986(target.url)),
    ):
        if theirs is None:
            refused.append(name)
        elif theirs != ours:
            differing.append(f"{name}: {theirs}, not {ours}")
    return Comparison(target, tuple(refused), tuple(differing))


def by_ada(url: str) -> Meaning | None:
    """None: it is no URL there."""
    try:
        read = can_ada.parse(url)
    except ValueError:
        return None
    scheme = read.protocol.removesuffix(":")
    if scheme not in DEFAULT_PORTS or read.username or read.password or read.hash:
        return Meaning(f"{scheme} with user or fragment", "", 0, (), ())
    port = int(read.port) if read.port else DEFAULT_PORTS[scheme]
    return meaning(scheme, read.hostname, port, read.pathname, read.search[1:])


def by_rfc3986(url: str) -> Meaning | None:
    """None: it is no URI there."""
    try:
        read = rfc3986.uri_reference(url)
        authority = read.authority_info()
    except (RFC3986Exception, UnicodeError):
        return None
    scheme = (read.scheme or "").lower()
    if scheme not in DEFAULT_PORTS or authority["userinfo"] or read.fragment is not None:
        return Meaning(f"{scheme} with user or fragment", "", 0, (), ())
    port = int(authority["port"] or DEFAULT_PORTS[scheme])
    return meaning(scheme, (authority["host"] or "").lower(), port, read.path or "/", read.query)


def meaning(scheme: str, host: str, port: int, path: str, query: str | None) -> Meaning:
    """The parts in a form that two parsers can share."""
    return Meaning(scheme, one_host(host), port, pieces(path, "/"), pieces(query or "", "&"))


def one_host(host: str) -> str:
    """An address in the one form of this comparison, whatever its brackets and dots."""
    try:
        return str(ip_address(host.removeprefix("[").removesuffix("]")))
    except ValueError:
        return host


def pieces(text: str, separator: str) -> tuple[bytes, ...]:
    """Each decoded for itself."""
    return tuple(unquote_to_bytes(piece) for piece in text.split(separator))
