"""Where a connection may go: address classes, judged names, and the dialler."""

import asyncio
import errno
import socket
from ipaddress import ip_address

import pytest

from proxy.addresses import Address, as_literal, classify, never_dialled
from proxy.errors import (
    DestinationAddressProhibited,
    DestinationRefused,
    UpstreamNameError,
    UpstreamNameTimeout,
    UpstreamUnreachable,
)
from proxy.network import Dialler, SystemResolver, dial, permitted
from proxy.reach import Reach
from tests.support.origin import Origin
from tests.support.resolver import PUBLIC, FakeResolver, FakeWires

CLASSES = """
0.0.0.0 unspecified
0.1.2.3 this-network
10.0.0.1 private
10.255.255.255 private
100.64.0.1 cgnat
100.127.255.255 cgnat
100.100.100.200 metadata
127.0.0.1 loopback
127.255.255.254 loopback
168.63.129.16 metadata
169.254.169.254 link-local
172.16.0.1 private
172.31.255.255 private
192.0.0.8 protocol-assignment
192.0.2.1 documentation
192.31.196.1 as112
192.52.193.1 amt
192.88.99.1 6to4
192.168.255.255 private
192.175.48.1 as112
198.18.0.1 benchmarking
198.19.255.255 benchmarking
198.51.100.1 documentation
203.0.113.1 documentation
224.0.0.1 multicast
239.255.255.255 multicast
240.0.0.1 reserved
255.255.255.255 broadcast
:: unspecified
::1 loopback
::2 ipv4-compatible
::7f00:1 ipv4-compatible
::ffff:127.0.0.1 ipv4-mapped
::ffff:8.8.8.8 ipv4-mapped
::ffff:0:8.8.8.8 ipv4-translated
64:ff9b::a9fe:a9fe nat64
64:ff9b:1::1 nat64
100::1 discard-only
100:0:0:1::1 dummy
2001::1 teredo
2001:2::1 benchmarking
2001:3::1 amt
2001:4:112::1 as112
2001:10::1 orchid
2001:2f::1 orchid
2001:30::1 drone-id
2001:1::1 protocol-assignment
2001:1ff::1 protocol-assignment
2001:db8::1 documentation
2002:7f00:1:: 6to4
2620:4f:8000::1 as112
3ffe::1 6bone
3fff::1 documentation
3fff:fff:ffff::1 documentation
5f00::1 segment-routing
fc00::1 private
fd12:3456::1 private
fd00:ec2::254 metadata
fd20:ce::254 metadata
fe80::1 link-local
fe80::1%2 link-local
fec0::1 site-local
ff02::1 multicast
1000::1 reserved
4000::1 reserved
8000::1 reserved
f000::1 reserved
1.1.1.1 -
8.8.8.8 -
9.255.255.255 -
11.0.0.0 -
100.63.255.255 -
100.128.0.0 -
172.15.255.255 -
172.32.0.0 -
192.0.1.1 -
198.17.255.255 -
198.20.0.0 -
223.255.255.255 -
93.184.215.14 -
2001:200::1 -
2001:4860:4860::8888 -
2606:4700:4700::1111 -
2a00:1450:4001::1 -
3fff:1000::1 -
""".strip().splitlines()


@pytest.mark.parametrize("line", CLASSES)
def test_every_class_of_address_has_its_name(line: str) -> None:
    """The explicit list decides (contract section 4); `-` is public."""
    text, name = line.split()
    assert classify(ip_address(text)) == (None if name == "-" else name)


@pytest.mark.parametrize(
    ("text", "name", "literal"),
    [
        ("8.8.8.8", True, True),
        ("127.0.0.1", True, True),
        ("10.1.2.3", True, True),
        ("100.64.0.1", True, True),
        ("fd12::1", True, True),
        ("::1", True, True),
        ("198.18.0.1", False, True),
        ("203.0.113.9", False, True),
        ("240.0.0.1", False, True),
        ("169.254.169.254", False, False),
        ("fe80::1", False, False),
        ("fd00:ec2::254", False, False),
        ("100.100.100.200", False, False),
        ("168.63.129.16", False, False),
        ("224.0.0.1", False, False),
        ("0.0.0.0", False, False),
        ("::", False, False),
        ("255.255.255.255", False, False),
        ("::ffff:10.0.0.1", False, False),
        ("64:ff9b::a00:1", False, False),
        ("2002:a00:1::", False, False),
    ],
)
def test_registration_opens_private_addresses_only(text: str, name: bool, literal: bool) -> None:
    """An exact registration may be private, never link-local, metadata, multicast or disguised."""
    address = ip_address(text)
    assert permitted(address, Reach.REGISTERED, literal=False) is name
    assert permitted(address, Reach.REGISTERED, literal=True) is literal
    assert permitted(address, Reach.PUBLIC, literal=True) is (classify(address) is None)
    assert (never_dialled(text) is None) is literal


def test_only_canonical_addresses_are_literals() -> None:
    """Everything else is a name, and a name is judged by what it resolves to."""
    assert as_literal("::1") == ip_address("::1")
    assert as_literal("127.1") is None
    assert as_literal("0x7f000001") is None


# Resolve, check, dial.


async def test_the_checked_address_is_the_one_dialled() -> None:
    """A name that changes between two look-ups is looked up once (DNS rebinding)."""
    wires = FakeWires()
    resolver = FakeResolver({"rebind.test": [[PUBLIC], ["127.0.0.1"]]})
    with pytest.raises(UpstreamUnreachable):
        await Dialler(resolver, dial=wires).connect("rebind.test", 443, Reach.PUBLIC)
    assert wires.dialled == [(PUBLIC, 443)]
    assert resolver.asked == ["rebind.test"]
    with pytest.raises(DestinationAddressProhibited):
        await Dialler(resolver, dial=wires).connect("rebind.test", 443, Reach.PUBLIC)
    assert wires.dialled == [(PUBLIC, 443)]


async def test_one_forbidden_address_refuses_the_name() -> None:
    """All addresses are judged before any is dialled, and the refusal doesn't name them."""
    dialler = Dialler(FakeResolver({"mixed.test": [PUBLIC, "10.9.8.7"]}))
    with pytest.raises(DestinationAddressProhibited) as refusal:
        await dialler.connect("mixed.test", 443, Reach.PUBLIC)
    assert "10.9.8.7" not in refusal.value.detail
    assert PUBLIC not in refusal.value.detail
    assert dialler.dialled == 0


async def test_an_address_in_the_url_asks_no_resolver() -> None:
    """Literals skip DNS and are judged all the same."""
    resolver = FakeResolver()
    with pytest.raises(DestinationAddressProhibited):
        await Dialler(resolver).connect("127.0.0.1", 80, Reach.PUBLIC)
    with pytest.raises(DestinationAddressProhibited):
        await Dialler(resolver).connect("169.254.169.254", 80, Reach.REGISTERED)
    assert resolver.asked == []


async def test_a_registered_loopback_address_is_dialled() -> None:
    """An exact registration reaches this machine; every attempt is counted."""
    async with Origin() as origin:
        dialler = Dialler(FakeResolver({"ollama.test": ["127.0.0.1"]}))
        for host in ("127.0.0.1", "ollama.test"):
            sock = await dialler.connect(host, origin.port, Reach.REGISTERED)
            assert sock.getpeername() == ("127.0.0.1", origin.port)
            sock.close()
    assert dialler.dialled == 2


@pytest.mark.parametrize("listening", ["127.0.0.1", "0.0.0.0", "::"])
async def test_our_own_listener_is_refused_unless_registered(listening: str) -> None:
    """A wildcard listener is every local address; another port is nothing of ours."""
    async with Origin() as origin:
        dialler = Dialler(FakeResolver(), frozenset({(ip_address(listening), origin.port)}))
        with pytest.raises(DestinationRefused):
            await dialler.connect("127.0.0.1", origin.port, Reach.REGISTERED)
        sock = await dialler.connect("127.0.0.1", origin.port, Reach.REGISTERED, own_allowed=True)
        sock.close()
        dialler.own = frozenset({(ip_address(listening), origin.port ^ 1)})
        sock = await dialler.connect("127.0.0.1", origin.port, Reach.REGISTERED)
        sock.close()


async def test_a_wildcard_listener_is_no_other_machine() -> None:
    """Only addresses of this machine are ours."""
    own = frozenset({(ip_address("0.0.0.0"), 8000)})
    dialler = Dialler(FakeResolver({"far.test": [PUBLIC]}), own, FakeWires())
    assert await dialler.addresses("far.test", 8000, Reach.PUBLIC) == [ip_address(PUBLIC)]


async def test_a_name_without_addresses_is_an_error() -> None:
    """An empty answer is no leave to go anywhere."""
    with pytest.raises(UpstreamNameError):
        await Dialler(FakeResolver({"empty.test": []})).connect("empty.test", 443, Reach.PUBLIC)


# Several addresses.


async def test_addresses_are_tried_in_turn_by_family() -> None:
    """The families alternate, beginning with the resolver's first (RFC 8305 section 4)."""
    wires = FakeWires()
    names = ["2606:4700::1", "2606:4700::2", "1.1.1.1", "1.1.1.2", "1.1.1.3"]
    with pytest.raises(UpstreamUnreachable) as failure:
        await Dialler(FakeResolver({"many.test": names}), dial=wires).connect(
            "many.test", 443, Reach.PUBLIC
        )
    tried = [address for address, _ in wires.dialled]
    assert tried == ["2606:4700::1", "1.1.1.1", "2606:4700::2", "1.1.1.2", "1.1.1.3"]
    assert "refused" in failure.value.detail
    assert isinstance(failure.value.__cause__, ConnectionRefusedError)


async def test_an_unroutable_address_is_unreachable() -> None:
    """Whatever the system's reason, the caller learns no address."""

    async def wires(address: Address, port: int) -> socket.socket:
        raise OSError(errno.ENETUNREACH, f"no route to {address}")

    resolver = FakeResolver({"far.test": [PUBLIC]})
    with pytest.raises(UpstreamUnreachable) as failure:
        await Dialler(resolver, dial=wires).connect("far.test", 443, Reach.PUBLIC)
    assert PUBLIC not in failure.value.detail


async def test_a_silent_address_holds_up_nobody() -> None:
    """The next address is tried beside one that doesn't answer, whose attempt is then ended."""
    ended = asyncio.Event()

    async def wires(address: Address, port: int) -> socket.socket:
        if str(address) == "1.1.1.1":
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()
        return await dial(ip_address("127.0.0.1"), port)

    async with Origin() as origin:
        resolver = FakeResolver({"slow.test": ["1.1.1.1", "1.1.1.2"]})
        sock = await Dialler(resolver, dial=wires).connect("slow.test", origin.port, Reach.PUBLIC)
        sock.close()
    assert ended.is_set()


async def test_the_loser_of_a_race_is_closed() -> None:
    """Two connections that come about in one moment: one is kept, the other closed."""
    opened: list[socket.socket] = []
    barrier = asyncio.Event()

    async def wires(address: Address, port: int) -> socket.socket:
        if str(address) == "1.1.1.1":
            await barrier.wait()
        barrier.set()
        opened.append(socket.socket())
        return opened[-1]

    resolver = FakeResolver({"race.test": ["1.1.1.1", "1.1.1.2"]})
    kept = await Dialler(resolver, dial=wires).connect("race.test", 443, Reach.PUBLIC)
    open_ones = [sock for sock in opened if sock.fileno() != -1]
    assert open_ones == [kept]
    kept.close()


async def test_giving_up_ends_every_attempt() -> None:
    """A deadline of the caller leaves no connection behind."""
    waiting = asyncio.Event()
    ended = asyncio.Event()

    async def wires(address: Address, port: int) -> socket.socket:
        waiting.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        raise AssertionError

    connecting = asyncio.create_task(
        Dialler(FakeResolver({"x.test": [PUBLIC]}), dial=wires).connect("x.test", 443, Reach.PUBLIC)
    )
    await waiting.wait()
    connecting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await connecting
    assert ended.is_set()


# The machine's resolver.


async def test_the_system_resolver_names_each_address_once() -> None:
    """localhost is in every hosts file."""
    found = await SystemResolver().resolve("localhost", 80)
    assert found
    assert len(set(found)) == len(found)
    assert all(address.is_loopback for address in found)


async def test_a_name_that_does_not_exist_is_a_name_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither an unknown name nor one that can't be a name is a fault of ours."""

    async def unknown(*_args: object, **_options: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    with pytest.raises(UpstreamNameError):
        await SystemResolver().resolve("a" * 64 + ".test", 443)
    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", unknown)
    with pytest.raises(UpstreamNameError):
        await SystemResolver().resolve("unknown.test", 443)


async def test_a_resolver_that_hangs_is_a_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    """RFC 9209 section 2.3.1 has a name of its own for it."""

    async def hang(*_args: object, **_options: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", hang)
    with pytest.raises(UpstreamNameTimeout) as failure:
        await SystemResolver(seconds=0.01).resolve("slow.test", 443)
    assert failure.value.proxy_status == "dns_timeout"
