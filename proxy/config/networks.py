"""Networks by their addresses, as in 10.0.0.0/8."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Annotated

from pydantic import PlainValidator


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


Network = Annotated[IPv4Network | IPv6Network, PlainValidator(_network)]
