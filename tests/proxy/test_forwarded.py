"""Who calls through a front proxy: only what trusted ones wrote is believed."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from proxy.forwarded import address_of, caller_behind, names_callers, within

TRUSTED = (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))
XFF, RFC = b"x-forwarded-for", b"forwarded"


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("192.0.2.1:4711", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("[2001:db8::1]:4711", "2001:db8::1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("fe80::1%eth0", "fe80::1"),
        ("", None),
        ("unknown", None),
        ("_hidden", None),
        ("192.0.2", None),
        ("192.0.2.1:x", None),
        ("192.0.2.01", None),
        ("[192.0.2.1", None),
        ("example.com", None),
    ],
)
def test_an_address_is_read_with_or_without_its_port(text: str, address: str | None) -> None:
    """As sockets and proxies write it; one of IPv4 is never one of IPv6."""
    assert address_of(text) == (address and ip_address(address))


@pytest.mark.parametrize(
    ("fields", "address"),
    [
        ([(XFF, b"192.0.2.1")], "192.0.2.1"),
        ([(XFF, b"1.1.1.1, 192.0.2.1")], "192.0.2.1"),
        ([(XFF, b"1.1.1.1, 192.0.2.1 , 10.0.0.2")], "192.0.2.1"),
        ([(XFF, b"1.1.1.1"), (XFF, b"192.0.2.1"), (XFF, b"10.0.0.2,10.0.0.3")], "192.0.2.1"),
        ([(XFF, b"10.0.0.9, 10.0.0.2")], "10.0.0.9"),
        ([(XFF, b"junk, 192.0.2.1")], "192.0.2.1"),
        ([(XFF, b"192.0.2.1, junk")], None),
        ([(XFF, b"192.0.2.1, ")], None),
        ([(XFF, b"192.0.2.1, junk, 10.0.0.2")], None),
        ([(XFF, b"")], None),
        ([(RFC, b"for=192.0.2.1")], "192.0.2.1"),
        ([(RFC, b"For=1.1.1.1, proto=https;for=192.0.2.1;by=10.0.0.2")], "192.0.2.1"),
        ([(RFC, b'for=1.1.1.1, for="[2001:db8::1]:4711", for=10.0.0.2')], "2001:db8::1"),
        ([(RFC, b"for=unknown")], None),
        ([(RFC, b"by=192.0.2.1")], None),
        ([(RFC, b'for="192.0.2.1')], None),
        ([(RFC, b"192.0.2.1")], None),
        ([(XFF, b"192.0.2.1"), (RFC, b"for=192.0.2.1")], "192.0.2.1"),
        ([(XFF, b"192.0.2.1"), (RFC, b"for=1.1.1.1")], None),
        ([(b"x-real-ip", b"192.0.2.1")], None),
        ([], None),
    ],
)
def test_the_right_most_address_that_is_not_trusted_calls(
    fields: list[tuple[bytes, bytes]], address: str | None
) -> None:
    """Whatever stands left of it was there before: anybody may have sent it."""
    found = caller_behind(tuple(fields), TRUSTED)
    assert found == (address and ip_address(address))


def test_a_network_has_addresses_of_its_own_kind() -> None:
    """No address is in none."""
    assert within(ip_address("10.1.2.3"), TRUSTED)
    assert within(ip_address("fd00::1"), TRUSTED)
    assert not within(ip_address("11.0.0.1"), TRUSTED)
    assert not within(None, TRUSTED)


def test_two_fields_name_callers() -> None:
    """Others are not asked."""
    assert names_callers(((XFF, b""),))
    assert names_callers(((RFC, b"for=_x"),))
    assert not names_callers(((b"x-real-ip", b"192.0.2.1"),))
