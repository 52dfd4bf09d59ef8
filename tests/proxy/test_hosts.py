"""Whose name may stand in Host: ours where some are listed, anybody's where none are."""

from __future__ import annotations

import pytest

from proxy.errors import BadRequest
from proxy.hosts import ANY, Hosts

OURS = Hosts(["relay.example.com", "*.internal.example.com"])


@pytest.mark.parametrize(
    "host",
    [
        *(b"relay.example.com", b"Relay.Example.COM:8443", b"relay.example.com:"),
        *(b"a.internal.example.com", b"localhost", b"localhost:8000", b"127.0.0.1:8000"),
        *(b"192.0.2.1", b"[::1]", b"[::1]:8000", b"[fe80::1%25eth0]:80"),
    ],
)
def test_our_names_and_addresses_are_right(host: bytes) -> None:
    """With any port; an address can't be made to lead elsewhere."""
    OURS.check(((b"accept", b"*/*"), (b"host", host)))
    ANY.check(((b"host", host),))


@pytest.mark.parametrize(
    "host",
    [
        *(b"evil.example", b"evil.example:8000", b"relay.example.com.evil.example", b"example.com"),
        *(b"internal.example.com", b"a.b.internal.example.com", b"xrelay.example.com"),
        *(b"localhost.evil.example", b"127.1", b"0x7f.0.0.1", b"2130706433", b"[evil]", b"%61"),
        *(b"relay.example.com.", b"*.internal.example.com.evil.example"),
    ],
)
def test_another_name_is_refused(host: bytes) -> None:
    """Also what some read as an address, and whatever only begins or ends like one of ours."""
    with pytest.raises(BadRequest):
        OURS.check(((b"host", host),))
    ANY.check(((b"host", host),))


def test_who_says_no_name_says_no_other() -> None:
    """HTTP/1.0 may go without; in HTTP/1.1 that is refused before."""
    OURS.check(())
