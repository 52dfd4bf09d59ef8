"""The path forms: service, scheme or `server=` as the first segment, then options. Pure."""

from __future__ import annotations

import re
from urllib.parse import unquote

from proxy.call.heads import SERVICE_NAME, read_cache, read_invalidate, read_server, read_service
from proxy.call.joining import join
from proxy.call.query import OPTIONS, Query, Reading, read_query
from proxy.call.shapes import Directions, ServiceNames
from proxy.errors import BadCall, UnknownService

_SCHEMES = ("https", "http")
_WRITTEN = re.compile(r"(https?):/{1,2}(.*)", re.IGNORECASE | re.ASCII)
_END = "-"
_HOST_OPTIONS = OPTIONS | {"service"}


def read_path(below: str, query: str, services: ServiceNames) -> Directions:
    """What path and raw query ask for; `below` is the path behind `/proxy`.

    Raises BadCall and UnknownService.
    """
    first, slash, rest = below[1:].partition("/")
    if first.startswith("server="):
        return _by_server(below.removeprefix("/server="), query, services)
    if first in _SCHEMES:
        return _by_host(first, rest, query, services)
    return _by_service(first, slash + rest, query, services)


def keeps_query(below: str, services: ServiceNames) -> bool:
    """Whether this is a path form whose closing `-` leaves all of the query to the target."""
    first, slash, rest = below[1:].partition("/")
    if first in _SCHEMES:
        _, slash, rest = rest.partition("/")
        return _split_options(slash + rest, _HOST_OPTIONS)[2]
    return services.canonical(first) is not None and _split_options(slash + rest, OPTIONS)[2]


def two_paths() -> BadCall:
    """The refusal of a path both before and behind the query."""
    return BadCall(
        "The path stands before the query and behind it: put the options into the path"
        " (/proxy/<service>/cache=<time>/-/...) and leave the base_url without a query."
    )


def _by_service(name: str, path: str, query: str, services: ServiceNames) -> Directions:
    canonical = services.canonical(name) if SERVICE_NAME.fullmatch(name) else None
    if canonical is None:
        raise UnknownService(
            "The path begins with no known service: use /proxy/<service>/..."
            " or /proxy/https/<host>/..., or put server into the query"
            " (some SDKs drop the query of their base_url)."
        )
    base = services.base(canonical)
    if base is None:
        raise BadCall(
            f"Every tenant of {canonical} has a host of its own: use /proxy/https/<host>/..."
        )
    read, path = _read_options(path, OPTIONS, query, services)
    return Directions(join(base, path, read.parameters), canonical, read.cache, read.invalidate)


def _by_host(scheme: str, rest: str, query: str, services: ServiceNames) -> Directions:
    host, slash, path = rest.partition("/")
    if not host:
        raise BadCall(f"The path names no host: use /proxy/{scheme}/<host>/...")
    read, path = _read_options(slash + path, _HOST_OPTIONS, query, services)
    url = join(f"{scheme}://{host}{path}", "", read.parameters)
    return Directions(url, read.service, read.cache, read.invalidate)


def _by_server(text: str, query: str, services: ServiceNames) -> Directions:
    """The older form: what is not encoded stays as it is, since here nothing has to be."""
    read = _read_behind(query, services)
    if written := _WRITTEN.fullmatch(text):
        server, path = f"{written[1]}://{written[2]}", ""
    else:
        first, slash, rest = text.partition("/")
        server, path = read_server(first), slash + rest
    return Directions(join(server, path, read.parameters), None, read.cache, read.invalidate)


def _read_behind(query: str, services: ServiceNames) -> Query:
    read = read_query(query, Reading(services, OPTIONS))
    if read.tail is not None:
        raise two_paths()
    return read


def _read_options(
    path: str, names: frozenset[str], query: str, services: ServiceNames
) -> tuple[Query, str]:
    """What steers, and the path behind it. Behind a closing `-` the query is the target's."""
    found, rest, closed = _split_options(path, names)
    if found and not closed:
        raise BadCall(
            "The options in the path are not closed: write a segment - behind the last one,"
            " or /-/ before a path that only looks like options."
        )
    if not closed:
        return _read_behind(query, services), path
    service = read_service(found["service"], services) if "service" in found else (None, "")
    cache = read_cache(found["cache"]) if "cache" in found else (None, "")
    invalidate = read_invalidate(found.get("invalidate", "0"))
    if service[1] or cache[1] or invalidate[1]:
        raise BadCall("An option in the path holds an encoded slash: leave it away.")
    return Query(None, service[0], cache[0], invalidate[0], parameters=query), rest


def _split_options(path: str, names: frozenset[str]) -> tuple[dict[str, str], str, bool]:
    """The raw options by name, the path behind them, and whether a `-` closed them."""
    found: dict[str, str] = {}
    rest = path
    while rest:
        segment, slash, behind = rest[1:].partition("/")
        # Some clients encode the = of a path.
        name, equals, value = unquote(segment).partition("=")
        if name == _END and not equals:
            return found, slash + behind, True
        if name not in names or not (equals or name == "invalidate"):
            break
        if name in found:
            raise BadCall(f"{name} stands in the path twice: write it once.", param=name)
        found[name] = value
        rest = slash + behind
    return found, path, False
