"""(Client, Target, bindings) to Grant: whether a call may go there, and with which key."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Protocol

from proxy.call import Call, Directions
from proxy.destinations import Target, query_parameter, without_parameters
from proxy.errors import (
    AmbiguousService,
    BadRequest,
    DestinationRefused,
    Forbidden,
    KeyMissing,
    UnknownService,
)
from proxy.grant import Client, Grant, Place, Route, Site, site_of
from proxy.leaks import holds_token
from proxy.messages import value
from proxy.narrowing import check_call
from proxy.reach import Reach
from proxy.services.model import Service
from proxy.services.slots import every_slot, header_names, query_names
from vault import Binding, Holdings, KeyRef

_REACH = {
    Place.PROVIDER: Reach.PUBLIC,
    Place.ORIGIN: Reach.REGISTERED,
    Place.BACKEND: Reach.REGISTERED,
    Place.DOWNLOAD: Reach.PUBLIC,
}


class KnownServices(Protocol):
    """What is asked of the services."""

    @property
    def all(self) -> Iterable[Service]:
        """Every service."""
        ...

    def get(self, name: str) -> Service | None:
        """The service of a name or alias."""
        ...

    def candidates(self, host: str) -> tuple[Service, ...]:
        """The services whose host it is: exact before wildcard."""
        ...

    def origin_of(self, name: str) -> Binding | None:
        """The place that the admin set as the service's origin."""
        ...

    def of_origin(self, target: Target) -> tuple[Service, ...]:
        """The services whose origin covers a destination."""
        ...


Refused = Callable[[Client, Target, Forbidden], None]
"""Hears of each call that may not go where it wants to."""


class Authorizer:
    """Decides from what is in memory and says why not. `own`: (host, port) of our listeners."""

    def __init__(
        self,
        services: KnownServices,
        own: frozenset[tuple[str, int]] = frozenset(),
        refused: Refused = lambda *_: None,
    ) -> None:
        self._services = services
        self._own = own
        self._refused = refused

    def authorize(self, client: Client, call: Call, route: Route) -> Grant:
        """The grant, or the refusal: Forbidden and its kin (403), AmbiguousService (400), 404."""
        try:
            for narrowing in client.narrowings:
                check_call(narrowing, call.method, call.fields, route.target)
            grant = self._grant(client, call, route)
        except Forbidden as error:
            self._refused(client, route.target, error)
            raise
        if holds_token(grant.target.url.encode()):
            # The parameters that are taken away are known only now: a token may still be in one.
            raise BadRequest("The platform token stands in a parameter that would be forwarded.")
        return grant

    def _grant(self, client: Client, call: Call, route: Route) -> Grant:
        target = route.target
        service = self._service(client, route.asked, target)
        if service is None:
            return self._without_service(client, target)
        if not _may_use(client, service):
            raise Forbidden(f"This token may not use {service.name}.")
        return self._for_service(client, call, service, target)

    def _service(self, client: Client, asked: Directions, target: Target) -> Service | None:
        if asked.service is not None:
            service = self._services.get(asked.service)
            if service is None:
                raise UnknownService("No service has this name; see: keyrelay service list")
            return service
        found = [one for one in self._on_host(target) if _usable(client, one)]
        found = found or self._of_backends(client.holdings, target)
        if len(found) > 1:
            names = ", ".join(sorted(one.name for one in found))
            raise AmbiguousService(f"Name one of these with service=: {names}.", param="service")
        return found[0] if found else None

    def _on_host(self, target: Target) -> tuple[Service, ...]:
        return self._services.of_origin(target) or self._services.candidates(target.host)

    def _of_backends(self, holdings: Holdings, target: Target) -> list[Service]:
        names = {one.service for one in holdings.backends if _covers(one.binding, target)}
        if len(names) != 1:
            return []
        service = self._services.get(names.pop())
        return [service] if service is not None else []

    def _without_service(self, client: Client, target: Target) -> Grant:
        held = [one for one in client.holdings.backends if _open_to(client, one.service)]
        backends = [Site(Place.BACKEND, one.binding) for one in held]
        hosts = [one for one in self._services.all if target.host in one.download_hosts]
        downloads = [
            site for one in hosts if _open_to(client, one.name) for site in _downloads(one)
        ]
        sites = (*backends, *downloads)
        site = site_of(sites, target)
        if site is None or client.handed_out:
            raise DestinationRefused(
                "No service that this tenant has a key for lives there, and no backend is "
                "registered there; name a service, or use: keyrelay backend add URL --service NAME"
            )
        reach = _REACH[site.place]
        return Grant(
            tenant=client.tenant,
            client=client.name,
            service=None,
            key=None,
            target=target,
            place=site.place,
            reach=reach,
            sites=sites,
            token_id=client.token_id,
            limits=client.limits,
        )

    def _for_service(self, client: Client, call: Call, service: Service, target: Target) -> Grant:
        keys = _keys(client, service)
        sites = self._sites(client, service, keys, target)
        site = site_of(sites, target)
        if site is None:
            raise _refused(client, service, sites, target)
        place = site.place
        self._refuse_own(place, target)
        cleaned = replace(
            target, query=without_parameters(target.query, query_names(every_slot(service)))
        )
        grant = Grant(
            tenant=client.tenant,
            client=_client_name(client, keys),
            service=service,
            key=None,
            target=cleaned,
            place=place,
            reach=_REACH[place],
            sites=sites,
            token_id=client.token_id,
            limits=client.limits,
        )
        if service.keyless or place is Place.DOWNLOAD:
            return grant
        return _with_key(grant, service, client, call, target)

    def _sites(
        self, client: Client, service: Service, keys: tuple[KeyRef, ...], target: Target
    ) -> tuple[Site, ...]:
        hosts = [host for host in service.hosts if not host.startswith("*.")]
        hosts += [host for key in keys for host in key.hosts]
        if not keys and _matches_wildcard(service.hosts, target.host):
            hosts.append(target.host)
        sites = [Site(Place.PROVIDER, Binding("https", host, 443)) for host in hosts]
        origin = self._services.origin_of(service.name)
        if origin is not None:
            sites.append(Site(Place.ORIGIN, origin))
        if client.handed_out:
            return tuple(sites)
        held = [one for one in client.holdings.backends if one.service == service.name]
        sites += [Site(Place.BACKEND, one.binding) for one in held]
        return (*sites, *_downloads(service))

    def _refuse_own(self, place: Place, target: Target) -> None:
        if place is not Place.BACKEND and (target.host, target.port) in self._own:
            raise DestinationRefused("keyrelay does not call itself; name the provider's own URL.")


def _with_key(grant: Grant, service: Service, client: Client, call: Call, target: Target) -> Grant:
    keys = _keys(client, service)
    fitting = [key for key in keys if _fits(key, grant.place, service, target)]
    if fitting:
        return replace(grant, key=fitting[0])
    if client.may_bring_own and _brings_own(service, call, target):
        return replace(grant, own_credential=True, target=target)
    raise _key_missing(client, service)


def _keys(client: Client, service: Service) -> tuple[KeyRef, ...]:
    """The keys that this client may use for the service, the one to prefer first."""
    if client.handed_out:
        return tuple(key for key in client.handed_out if key.service == service.name)
    held = client.holdings.keys.get(service.name, ())
    alias = client.key_aliases.get(service.name)
    if alias is None:
        return held
    return tuple(key for key in held if key.alias == alias)


def _fits(key: KeyRef, place: Place, service: Service, target: Target) -> bool:
    if place is not Place.PROVIDER or target.host in service.hosts:
        return True
    return target.host in key.hosts


def _may_use(client: Client, service: Service) -> bool:
    if client.handed_out:
        return any(key.service == service.name for key in client.handed_out)
    return _open_to(client, service.name)


def _open_to(client: Client, service: str) -> bool:
    return client.services is None or service in client.services


def _usable(client: Client, service: Service) -> bool:
    """Whether a service counts as a candidate when the caller named none."""
    if client.handed_out:
        return _may_use(client, service)
    return service.keyless or service.name in client.holdings.keys


def _brings_own(service: Service, call: Call, target: Target) -> bool:
    slots = service.slots_for(target.host, call.fields)
    in_field = any(value(call.fields, name) is not None for name in header_names(slots))
    names = query_names(every_slot(service))
    return in_field or any(query_parameter(target.query, name) for name in names)


def _client_name(client: Client, keys: tuple[KeyRef, ...]) -> str:
    return f"key:{keys[0].service}/{keys[0].alias}" if client.handed_out and keys else client.name


def _covers(binding: Binding, target: Target) -> bool:
    return binding.covers(target.scheme, target.host, target.port, target.path)


def _matches_wildcard(hosts: Iterable[str], host: str) -> bool:
    """Whether `*.name` stands among the hosts for this one; a wildcard covers one label."""
    return "*." + host.partition(".")[2] in hosts


def _downloads(service: Service) -> list[Site]:
    """All of them: redirects lead there from the service's own hosts."""
    return [Site(Place.DOWNLOAD, Binding("https", host, 443)) for host in service.download_hosts]


def _refused(
    client: Client, service: Service, sites: tuple[Site, ...], target: Target
) -> Forbidden:
    if any(_covers(site.binding, target) for site in sites):
        return DestinationRefused(
            "The path has %2F, %5C, %25, ; or // in it, which servers read differently."
        )
    if client.handed_out:
        return DestinationRefused(
            f"A handed-out key is good for {service.name}'s own hosts only; use a platform token."
        )
    if _matches_wildcard(service.hosts, target.host):
        return DestinationRefused(
            f"No key of {service.name} is fixed to this host; "
            f"use: keyrelay key add {service.name} --host HOST"
        )
    return DestinationRefused(
        f"The key of {service.name} may not go there; the admin can register the place with: "
        f"keyrelay backend add URL --service {service.name}"
    )


def _key_missing(client: Client, service: Service) -> KeyMissing:
    tenant = "" if client.tenant == "default" else f" --tenant {client.tenant}"
    alias = client.key_aliases.get(service.name)
    named = "" if alias is None else f" --alias {alias}"
    return KeyMissing(
        f"There is no key for {service.name} yet; add one with: "
        f"keyrelay key add {service.name}{named}{tenant}",
        param="service",
    )
