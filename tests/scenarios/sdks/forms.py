"""The forms of contract section 2 as doors, for one SDK: what its base_url then is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import quote

from tests.scenarios.sdks.row import Door, Sdk


@dataclass(frozen=True, slots=True)
class Place:
    """Where keyrelay and the SDK's provider are, and how the caller is known.

    `until`: the time for `cache=`, in unix seconds.
    """

    relay: str
    provider: str
    token: str
    until: int


def direct(sdk: Sdk, place: Place) -> Door:
    """The provider itself, with its own key."""
    return Door(place.provider + sdk.base, sdk.key)


def service_path(sdk: Sdk, place: Place) -> Door:
    """The form to document."""
    return _door(sdk, place, f"/proxy/{sdk.service}{sdk.base}")


def service_path_options(sdk: Sdk, place: Place) -> Door:
    """The same with options, which `-` ends."""
    return _door(sdk, place, f"/proxy/{sdk.service}/cache={place.until}/invalidate/-{sdk.base}")


def kept(sdk: Sdk, place: Place) -> Door:
    """The same, answered by the cache when it can be."""
    return _door(sdk, place, f"/proxy/{sdk.service}/cache={place.until}/-{sdk.base}")


def host_path(sdk: Sdk, place: Place) -> Door:
    """By host; the service is found from it."""
    scheme, _, rest = (place.provider + sdk.base).partition("://")
    return _door(sdk, place, f"/proxy/{scheme}/{rest}")


def server_path(sdk: Sdk, place: Place) -> Door:
    """The older path form."""
    return _door(sdk, place, f"/proxy/server={place.provider}{sdk.base}")


def query(sdk: Sdk, place: Place) -> Door:
    """A base_url with a query, to which the client glues its path somewhere."""
    server = place.provider + sdk.base
    control = f"server={server}&service={sdk.service}&invalidate&cache={place.until}"
    return _door(sdk, place, f"/proxy?{control}")


def encoded_query(sdk: Sdk, place: Place) -> Door:
    """The same with `server` encoded, and a bare flag last."""
    server = quote(place.provider + sdk.base, safe="")
    control = f"server={server}&service={sdk.service}&cache={place.until}&invalidate"
    return _door(sdk, place, f"/proxy?{control}")


def default_query(sdk: Sdk, place: Place) -> Door:
    """The query given apart from the base_url, where the client can."""
    control = {
        "server": place.provider + sdk.base,
        "service": sdk.service,
        "cache": str(place.until),
        "invalidate": "true",
    }
    return Door(f"{place.relay}/proxy", place.token, query=control)


def _door(sdk: Sdk, place: Place, target: str) -> Door:
    if sdk.checks_key:
        fields = {"X-Relay-Token": place.token}
        return Door(place.relay + target, "AIzaSyB9876543210zyxwvutsrqponmlkjihgfe", fields=fields)
    return Door(place.relay + target, place.token)


Form = Callable[[Sdk, Place], Door]

FORMS: dict[str, Form] = {
    "/proxy/SERVICE/...": service_path,
    "/proxy/SERVICE/cache=T/invalidate/-/...": service_path_options,
    "/proxy/https/HOST/...": host_path,
    "/proxy/server=URL/...": server_path,
    "/proxy?server=URL&invalidate&cache=T": query,
    "/proxy?server=ENCODED&cache=T&invalidate": encoded_query,
    "default_query": default_query,
}
QUERY_FORMS = frozenset({query, encoded_query})


def offered(sdk: Sdk, form: Form) -> bool:
    """Whether the client has a way to be told so."""
    return sdk.default_query or form is not default_query


def survives(sdk: Sdk, form: Form) -> bool:
    """Whether what keyrelay must know is still there when the client has made its URL."""
    return not (sdk.drops == "path" or (sdk.drops == "query" and form in QUERY_FORMS))
