"""The forms of a request target to Directions: is the call in the query or in the path? Pure."""

from __future__ import annotations

import re

from proxy import uris
from proxy.call.joining import join
from proxy.call.paths import keeps_query, read_path, two_paths
from proxy.call.query import CONTROLS, Query, Reading, names_server, read_query
from proxy.call.shapes import Directions, ServiceNames
from proxy.errors import BadCall, NotFound

_PREFIX = "/proxy"
_ABSOLUTE = re.compile(r"https?://[^/?#]*", re.IGNORECASE | re.ASCII)
_UNFIT = re.compile(r"[\x00-\x20\x7f-\x9f#]")


def parse_directions(target: bytes, services: ServiceNames) -> Directions:
    """What a raw request target (RFC 9112 section 3.2, origin or absolute form) asks for.

    Raises BadCall where the target can't be read, UnknownService where its path or query names a
    service that is not known, NotFound where it is not below `/proxy`.
    """
    path, _, query = _read_octets(target).partition("?")
    below = path.removeprefix(_PREFIX)
    if below == path or below[:1] not in ("", "/"):
        raise NotFound("Calls go to /proxy.")
    if found := uris.flaw(path, query):
        raise BadCall(f"The call holds {found}.")
    if below in ("", "/"):
        return _from_query(query, Reading(services, CONTROLS, letters=below == "/"))
    if names_server(query) and not keeps_query(below, services):
        return _from_suffix(below, query, Reading(services, CONTROLS))
    return read_path(below, query, services)


def _read_octets(target: bytes) -> str:
    """The target as ASCII text, without scheme and authority."""
    try:
        text = target.decode()
    except UnicodeDecodeError:
        raise BadCall("The call holds octets that are not UTF-8: percent-encode them.") from None
    if _UNFIT.search(text):
        raise BadCall("The call holds a space, a # or a control character: percent-encode it.")
    return uris.encode(text if text.startswith("/") else _ABSOLUTE.sub("", text, count=1))


def _from_query(query: str, reading: Reading) -> Directions:
    read = read_query(query, reading)
    if read.server is None:
        raise BadCall(
            "The call names no server. Either the SDK dropped the query of its base_url"
            " (use /proxy/<service>/... as base_url), or a shell cut the URL at an & (quote it).",
            param="server",
        )
    return _direct(read, read.server, read.tail or "")


def _from_suffix(below: str, query: str, reading: Reading) -> Directions:
    if below.startswith("/server="):
        raise BadCall("server stands in the path and in the query: write it once.", param="server")
    read = read_query(query, reading)
    if read.tail is not None or read.server is None:
        raise two_paths()
    return _direct(read, read.server, below)


def _direct(read: Query, server: str, path: str) -> Directions:
    return Directions(
        join(server, path, read.parameters), read.service, read.cache, read.invalidate
    )
