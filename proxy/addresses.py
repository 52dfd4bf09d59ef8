"""What kind an address is: which are public, and which an admin may register. Pure.

The lists are explicit, because `is_global` and `is_private` of the standard library differ from
what a caller may reach.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final

Address = IPv4Address | IPv6Address

# Address classes: IANA special-purpose registries (RFC 6890) and what has been withdrawn since. The
# first row that holds an address names it, so narrow rows stand before wide ones.

IPV4_CLASSES: Final = tuple(
    (IPv4Network(network), name)
    for network, name in (
        ("0.0.0.0/32", "unspecified"),
        ("0.0.0.0/8", "this-network"),
        ("10.0.0.0/8", "private"),
        ("100.100.100.200/32", "metadata"),
        ("100.64.0.0/10", "cgnat"),
        ("127.0.0.0/8", "loopback"),
        ("168.63.129.16/32", "metadata"),
        ("169.254.0.0/16", "link-local"),
        ("172.16.0.0/12", "private"),
        ("192.0.0.0/24", "protocol-assignment"),
        ("192.0.2.0/24", "documentation"),
        ("192.31.196.0/24", "as112"),
        ("192.52.193.0/24", "amt"),
        ("192.88.99.0/24", "6to4"),
        ("192.168.0.0/16", "private"),
        ("192.175.48.0/24", "as112"),
        ("198.18.0.0/15", "benchmarking"),
        ("198.51.100.0/24", "documentation"),
        ("203.0.113.0/24", "documentation"),
        ("224.0.0.0/4", "multicast"),
        ("255.255.255.255/32", "broadcast"),
        ("240.0.0.0/4", "reserved"),
    )
)

IPV6_CLASSES: Final = tuple(
    (IPv6Network(network), name)
    for network, name in (
        ("::/128", "unspecified"),
        ("::1/128", "loopback"),
        ("::/96", "ipv4-compatible"),
        ("::ffff:0:0/96", "ipv4-mapped"),
        ("::ffff:0:0:0/96", "ipv4-translated"),
        ("64:ff9b::/96", "nat64"),
        ("64:ff9b:1::/48", "nat64"),
        ("100::/64", "discard-only"),
        ("100:0:0:1::/64", "dummy"),
        ("2001::/32", "teredo"),
        ("2001:2::/48", "benchmarking"),
        ("2001:3::/32", "amt"),
        ("2001:4:112::/48", "as112"),
        ("2001:10::/28", "orchid"),
        ("2001:20::/28", "orchid"),
        ("2001:30::/28", "drone-id"),
        ("2001::/23", "protocol-assignment"),
        ("2001:db8::/32", "documentation"),
        ("2002::/16", "6to4"),
        ("2620:4f:8000::/48", "as112"),
        ("3ffe::/16", "6bone"),
        ("3fff::/20", "documentation"),
        ("5f00::/16", "segment-routing"),
        ("fd00:ec2::254/128", "metadata"),
        ("fd20:ce::254/128", "metadata"),
        ("fc00::/7", "private"),
        ("fe80::/10", "link-local"),
        ("fec0::/10", "site-local"),
        ("ff00::/8", "multicast"),
    )
)

IPV6_GLOBAL_UNICAST: Final = IPv6Network("2000::/3")
"""The only part of IPv6 that is handed out (RFC 4291 section 2.4)."""

REGISTERED_NAME_MAY_BE: Final = frozenset({"private", "loopback", "cgnat"})
REGISTERED_LITERAL_MAY_BE: Final = REGISTERED_NAME_MAY_BE | {
    "benchmarking",
    "documentation",
    "reserved",
}


def classify(address: Address) -> str | None:
    """Why an address is not public, by one word; None when it is public."""
    if isinstance(address, IPv4Address):
        return next((name for network, name in IPV4_CLASSES if address in network), None)
    found = next((name for network, name in IPV6_CLASSES if address in network), None)
    return found or (None if address in IPV6_GLOBAL_UNICAST else "reserved")


def as_literal(host: str) -> Address | None:
    """The address that a canonical host (no brackets) is, or None for a name."""
    try:
        return ip_address(host)
    except ValueError:
        return None


def never_dialled(host: str) -> str | None:
    """The kind of a literal address that nothing is sent to, whoever registers it; else None."""
    address = as_literal(host)
    kind = None if address is None else classify(address)
    return None if kind in REGISTERED_LITERAL_MAY_BE else kind
