"""Networks by their addresses, as in 10.0.0.0/8, and machines by their names."""

from __future__ import annotations

import re
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Annotated, Final

from pydantic import AfterValidator, PlainValidator

_NAME: Final = re.compile(r"(?:\*\.)?[a-z0-9_-]+(?:\.[a-z0-9_-]+)*", re.ASCII)


def _network(text: object) -> IPv4Network | IPv6Network:
    try:
        found = ip_network(text) if isinstance(text, str) else None
    except ValueError:
        found = None
    if found is None:
        raise ValueError("expected an address or a network, such as 192.0.2.7 or 10.0.0.0/8")
    if found.prefixlen == 0:
        raise ValueError("expected a network of your own: everybody could say who they are")
    return found


def _host_name(text: str) -> str:
    name = text.lower()
    if len(name) > 253 or not _NAME.fullmatch(name):
        raise ValueError("expected a name, such as relay.example.com or *.example.com")
    return name


HostName = Annotated[str, AfterValidator(_host_name)]
Network = Annotated[IPv4Network | IPv6Network, PlainValidator(_network)]
