"""What is sent for a call, what is remembered of it, and what comes back."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from types import TracebackType

import pytest

from proxy.bounds import ByService
from proxy.call import Call, Directions
from proxy.destinations import Target
from proxy.errors import BadRequest, RedirectRefused
from proxy.grant import Grant, Place, Site
from proxy.messages import Fields, Response
from proxy.reach import Reach
from proxy.services.model import Service, Slot
from proxy.upstream.forwarder import REMEMBERED, Forwarder
from proxy.upstream.redirects import Redirects
from proxy.upstream.transport import Deadlines, OutboundRequest
from tests.support.outbound import Body, whole
from vault import Binding, Credential, KeyRef, Secret

OLD, NEW = b"sk-old-0123456789", b"sk-new-0123456789"
SLOT = Slot("header", "Authorization", "Bearer {key}")
SERVICE = Service("acme", "text", (), (SLOT,), (SLOT,), defaults=((b"x-version", b"1"),))
KEY = KeyRef("default", "acme", "default", 1)
FIELDS: Fields = ((b"content-type", b"text/plain"), (b"authorization", b"Bearer kr_x"))


class Leaf:
    """Keeps what it is given, and gives one answer."""

    def __init__(self, answer: Response | None = None) -> None:
        self.sent: list[OutboundRequest] = []
        self.released = 0
        self.answer = answer or Response(200, (), Body(), content=b"")

    def send(self, outbound: OutboundRequest) -> AbstractAsyncContextManager[Response]:
        self.sent.append(outbound)
        return Answered(self)


class Answered(AbstractAsyncContextManager[Response]):
    def __init__(self, leaf: Leaf) -> None:
        self.leaf = leaf

    async def __aenter__(self) -> Response:
        return self.leaf.answer

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.leaf.released += 1


class Keys:
    """One key, which a test may change; `opened` is held once per version, as by the vault."""

    def __init__(self, octets: bytes = OLD) -> None:
        self.become(octets)

    def become(self, octets: bytes) -> None:
        self.opened: Credential = {"key": Secret(octets)}

    async def open_key(self, ref: KeyRef) -> Credential:
        return self.opened


class Slots:
    credential_headers = frozenset({b"authorization"})


def forwarder(leaf: Leaf, keys: Keys | None = None) -> Forwarder:
    deadlines = ByService(Deadlines())
    return Forwarder(leaf, keys or Keys(), Slots(), Redirects(), b"kr-1", deadlines)


def granted(*, key: KeyRef | None = KEY, own: bool = False) -> Grant:
    return Grant(
        tenant="default",
        client="ci",
        service=SERVICE,
        key=key,
        target=Target("https", "api.example.com", 443, "/v1"),
        place=Place.PROVIDER,
        reach=Reach.PUBLIC,
        own_credential=own,
        sites=(Site(Place.PROVIDER, Binding("https", "api.example.com", 443)),),
    )


def call(body: Body | None = None, head: bytes = b"head", fields: Fields = FIELDS) -> Call:
    asked = Directions("https://api.example.com/v1", "acme")
    return Call("POST", asked, fields, body or whole(b"x"), "id", head)


async def send(to: Forwarder, one: Call, grant: Grant) -> Response:
    async with to.send(one, grant, one.body) as response:
        return response


async def test_equal_headers_are_written_once() -> None:
    """The opening is the same object; the body is each call's own."""
    leaf, grant = Leaf(), granted()
    to = forwarder(leaf)
    bodies = [whole(b"one"), whole(b"three")]
    for body in bodies:
        await send(to, call(body), grant)
    first, second = leaf.sent
    assert first.opening is second.opening
    assert first.opening == (
        b"POST /v1 HTTP/1.1\r\nhost: api.example.com\r\ncontent-type: text/plain\r\n"
        b"x-version: 1\r\nvia: 1.1 kr-1\r\nauthorization: Bearer " + OLD + b"\r\n"
    )
    assert [first.body, second.body] == bodies


async def test_another_key_is_sent_at_once_and_nothing_is_kept_of_the_old_one() -> None:
    """What was written with a credential is good for this very object only."""
    leaf, keys, grant = Leaf(), Keys(), granted()
    to = forwarder(leaf, keys)
    for head in (b"one", b"two"):
        await send(to, call(head=head), grant)
    keys.become(NEW)
    await send(to, call(head=b"one"), grant)
    assert NEW in leaf.sent[-1].opening
    assert [OLD in prepared.opening for prepared in to._prepared.values()] == [False]


async def test_another_grant_is_followed_at_once() -> None:
    """Equal headers may be granted something else once the vault has changed."""
    leaf = Leaf()
    to = forwarder(leaf)
    await send(to, call(), granted())
    await send(to, call(), granted(key=None))
    assert OLD not in leaf.sent[-1].opening


@pytest.mark.parametrize(("head", "own"), [(b"", False), (b"head", True)])
async def test_some_calls_leave_nothing_behind(head: bytes, own: bool) -> None:
    """Those with a credential of the caller's own, and those that say so."""
    to = forwarder(Leaf())
    await send(to, call(head=head), granted(key=None if own else KEY, own=own))
    assert not to._prepared


async def test_what_is_remembered_is_bounded() -> None:
    """The oldest header leaves first."""
    to, grant = forwarder(Leaf()), granted()
    for number in range(REMEMBERED + 1):
        await send(to, call(head=b"%d" % number), grant)
    assert len(to._prepared) == REMEMBERED
    assert b"0" not in to._prepared


async def test_nothing_that_holds_a_key_shows_it() -> None:
    """Neither to a log nor to a failing test."""
    leaf, grant = Leaf(), granted()
    to = forwarder(leaf)
    await send(to, call(), grant)
    shown = repr((to, leaf.sent, *to._prepared.values()))
    assert OLD.decode() not in shown


async def test_a_header_that_can_not_be_sent_is_refused() -> None:
    """Before anything is sent, and again for the next call."""
    leaf, grant = Leaf(), granted()
    to = forwarder(leaf)
    for _ in range(2):
        with pytest.raises(BadRequest):
            await send(to, call(fields=((b"x", b"a\nb"),)), grant)
    assert leaf.sent == []


async def test_an_answer_that_is_refused_is_let_go() -> None:
    """The connection goes back whatever the answer was."""
    leaf = Leaf(Response(302, ((b"location", b"https://elsewhere.example/"),), Body()))
    with pytest.raises(RedirectRefused):
        await send(forwarder(leaf), call(), granted())
    assert leaf.released == 1


async def test_a_field_that_echoes_the_key_is_dropped() -> None:
    """Of an answer for equal headers too."""
    leaf, grant = Leaf(Response(200, ((b"x-a", OLD), (b"x-b", b"b")), Body())), granted()
    to = forwarder(leaf)
    for _ in range(2):
        response = await send(to, call(), grant)
        assert response.fields == ((b"x-b", b"b"),)
