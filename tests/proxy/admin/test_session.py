"""Sign-in for people: when a session begins, whose it is, and what ends it."""

from __future__ import annotations

import re

import pytest

from proxy.admin.session import (
    COOKIE,
    IDLE_SECONDS,
    LONGEST_SECONDS,
    MOST,
    MOST_OF_ONE,
    Session,
    Sessions,
    check_csrf,
)
from proxy.errors import Forbidden, Unauthorized, Unavailable
from proxy.messages import Field, Fields
from tests.support.clock import FakeClock
from vault import StoreUnavailable, Token

ADA = Token("adaadaadaada", "ada", "default", "admin", 0.0)


class Books:
    """Tokens by their text, as the vault would know them."""

    def __init__(self, *tokens: Token) -> None:
        self.by_text = {f"kr_{one.name}".encode(): one for one in tokens}
        self.locked = False

    async def verify_token(self, text: bytes) -> Token | None:
        self.look()
        return self.by_text.get(text)

    async def good_token(self, token_id: str) -> Token | None:
        self.look()
        return next((one for one in self.by_text.values() if one.id == token_id), None)

    def look(self) -> None:
        if self.locked:
            raise StoreUnavailable("locked")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def books() -> Books:
    return Books(ADA)


@pytest.fixture
def sessions(books: Books, clock: FakeClock) -> Sessions:
    return Sessions(books, clock)


def sent_back(set_cookie: Field) -> Fields:
    """What a browser sends with the next request, among the cookies of others."""
    pair = set_cookie[1].split(b";")[0]
    return ((b"cookie", b'other="; a=1'), (b"cookie", b"theme=dark; " + pair + b"; z"))


async def test_the_cookie_is_for_this_host_alone_and_for_no_script(sessions: Sessions) -> None:
    """RFC 6265bis section 4.1.3.2: __Host- needs Secure, Path=/ and no Domain."""
    name, line = await sessions.sign_in(b"kr_ada")
    pair, *attributes = line.decode().split("; ")
    assert name == b"set-cookie"
    assert re.fullmatch(r"__Host-keyrelay=[\w-]{43}", pair)  # 256 random bits
    assert attributes == ["Path=/", "Secure", "HttpOnly", "SameSite=Strict", "Max-Age=28800"]


async def test_a_cookie_is_kept_as_its_hash_only(sessions: Sessions) -> None:
    """Who reads the memory of a session store can't sign in with it."""
    _, line = await sessions.sign_in(b"kr_ada")
    cookie = line.decode().split(";")[0].partition("=")[2]
    assert cookie not in repr(sessions._open)
    found = await sessions.find(((b"cookie", f"{COOKIE}={cookie}".encode()),))
    assert found is not None
    assert cookie not in repr(found)
    assert found.csrf not in repr(found)


async def test_whoever_has_the_cookie_is_who_signed_in(sessions: Sessions) -> None:
    """And each session has a CSRF token of its own, the same with every request."""
    first = sent_back(await sessions.sign_in(b"kr_ada"))
    second = sent_back(await sessions.sign_in(b"kr_ada"))
    one, again, other = [await sessions.find(fields) for fields in (first, first, second)]
    assert one is not None
    assert other is not None
    assert one == again
    assert one.who == ADA
    assert one.csrf != other.csrf


@pytest.mark.parametrize(
    "fields",
    [
        (),
        ((b"cookie", b"other=1"),),
        ((b"cookie", f"{COOKIE}=".encode()),),
        ((b"cookie", f"{COOKIE}={'A' * 43}".encode()),),
    ],
)
async def test_nobody_else_is_signed_in(sessions: Sessions, fields: Fields) -> None:
    """No cookie, an empty or an unknown one."""
    await sessions.sign_in(b"kr_ada")
    assert await sessions.find(fields) is None


async def test_a_wrong_token_opens_nothing(
    sessions: Sessions, caplog: pytest.LogCaptureFixture
) -> None:
    """Said in the same sentence as everywhere; the log says what it was, without it."""
    caplog.set_level("INFO", logger="keyrelay.admin")
    with pytest.raises(Unauthorized, match="Send a valid platform token"):
        await sessions.sign_in(b"kr_wrongwrong")
    assert "a token with a typo" in caplog.text
    assert "kr_wrong" not in caplog.text


@pytest.mark.parametrize(
    "token",
    [
        Token("rearearearea", "rita", "default", "read", 0.0),
        Token("calcalcalcal", "carl", "default", "call", 0.0),
        Token("oneoneoneone", "one", "default", "admin", 0.0, frozenset({"openai"})),
    ],
)
async def test_only_admins_sign_in(clock: FakeClock, token: Token) -> None:
    """By role, and for every service: what it could issue would be more than it has."""
    with pytest.raises(Forbidden):
        await Sessions(Books(token), clock).sign_in(f"kr_{token.name}".encode())


class Listener:
    """Hears of sign-ins."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, ...]] = []

    def signed_in(self, tenant: str, name: str) -> None:
        self.heard.append(("in", tenant, name))

    def not_signed_in(self, why: str, tenant: str = "") -> None:
        self.heard.append(("refused", tenant, why))

    def signed_out(self, tenant: str, token_id: str) -> None:
        self.heard.append(("out", tenant, token_id))


async def test_who_signs_in_or_could_not_is_heard_of(clock: FakeClock) -> None:
    """By the token's name where it is one; never by what was typed."""
    carl, listener = Token("calcalcalcal", "carl", "default", "call", 0.0), Listener()
    sessions = Sessions(Books(ADA, carl), clock, witness=listener)
    fields = sent_back(await sessions.sign_in(b"kr_ada"))
    with pytest.raises(Forbidden):
        await sessions.sign_in(b"kr_carl")
    with pytest.raises(Unauthorized):
        await sessions.sign_in(b"kr_wrongwrong")
    assert listener.heard == [
        ("in", "default", "ada"),
        ("refused", "default", "carl, a token that may not"),
        ("refused", "", "a token with a typo or a piece missing"),
    ]
    for _ in range(2):
        sessions.sign_out(fields)
    assert listener.heard[3:] == [("out", "default", ADA.id)]


async def test_a_session_ends_when_nobody_uses_it(sessions: Sessions, clock: FakeClock) -> None:
    """Half an hour after the last request."""
    fields = sent_back(await sessions.sign_in(b"kr_ada"))
    clock.advance(IDLE_SECONDS - 1)
    assert await sessions.find(fields) is not None
    clock.advance(IDLE_SECONDS)
    assert await sessions.find(fields) is None


async def test_a_session_ends_with_the_working_day(sessions: Sessions, clock: FakeClock) -> None:
    """Eight hours after it began, used or not."""
    fields = sent_back(await sessions.sign_in(b"kr_ada"))
    for _ in range(LONGEST_SECONDS // 1200 - 1):
        clock.advance(1200)
        assert await sessions.find(fields) is not None
    clock.advance(1200)
    assert await sessions.find(fields) is None


async def test_signing_out_ends_the_session_and_the_cookie(sessions: Sessions) -> None:
    """Only this one; without a cookie there is nothing to end."""
    fields = sent_back(await sessions.sign_in(b"kr_ada"))
    other = sent_back(await sessions.sign_in(b"kr_ada"))
    name, line = sessions.sign_out(fields)
    assert (name, line.split(b"; ")[0]) == (b"set-cookie", f"{COOKIE}=".encode())
    assert line.endswith(b"Max-Age=0")
    assert await sessions.find(fields) is None
    assert await sessions.find(other) is not None
    assert sessions.sign_out(()) == (name, line)


async def test_the_end_of_a_token_ends_its_sessions(sessions: Sessions, books: Books) -> None:
    """It is looked up with each request, and a session does not come back with it."""
    fields = sent_back(await sessions.sign_in(b"kr_ada"))
    token = books.by_text.pop(b"kr_ada")
    assert await sessions.find(fields) is None
    books.by_text[b"kr_ada"] = token
    assert await sessions.find(fields) is None


async def test_a_vault_that_does_not_answer_ends_no_session(
    sessions: Sessions, books: Books
) -> None:
    """It is said so, and tried again."""
    fields = sent_back(await sessions.sign_in(b"kr_ada"))
    books.locked = True
    with pytest.raises(Unavailable):
        await sessions.find(fields)
    with pytest.raises(Unavailable):
        await sessions.sign_in(b"kr_ada")
    books.locked = False
    assert await sessions.find(fields) is not None


async def test_one_token_has_few_sessions(sessions: Sessions) -> None:
    """Its oldest makes room."""
    signed = [sent_back(await sessions.sign_in(b"kr_ada")) for _ in range(MOST_OF_ONE + 1)]
    there = [await sessions.find(fields) is not None for fields in signed]
    assert there == [False] + [True] * MOST_OF_ONE


async def test_sessions_are_bounded_in_all(clock: FakeClock) -> None:
    """Of many tokens the oldest goes; what is over anyway goes first."""
    tokens = [Token(f"{n:012}", f"t{n}", "default", "admin", 0.0) for n in range(MOST + 2)]
    sessions = Sessions(Books(*tokens), clock)
    signed = [sent_back(await sessions.sign_in(f"kr_{one.name}".encode())) for one in tokens[:-1]]
    assert await sessions.find(signed[0]) is None
    assert await sessions.find(signed[1]) is not None
    clock.advance(IDLE_SECONDS)
    last = sent_back(await sessions.sign_in(f"kr_{tokens[-1].name}".encode()))
    assert await sessions.find(last) is not None
    assert len(sessions._open) == 1


async def test_no_tenant_signs_another_one_out(clock: FakeClock) -> None:
    """However many tokens it issues itself: its own oldest makes room."""
    many = [Token(f"{n:012}", f"t{n}", "team", "admin", 0.0) for n in range(MOST + 2)]
    sessions = Sessions(Books(ADA, *many), clock)
    ada = sent_back(await sessions.sign_in(b"kr_ada"))
    signed = [sent_back(await sessions.sign_in(f"kr_{one.name}".encode())) for one in many]
    assert await sessions.find(ada) is not None
    there = [await sessions.find(one) is not None for one in signed]
    assert there == [False] * 3 + [True] * (MOST - 1)


@pytest.mark.parametrize("given", ["", "x", "ä", "0" * 64])
def test_a_form_without_the_right_csrf_token_is_refused(given: str) -> None:
    """Compared in constant time, as octets."""
    session = Session(ADA, "f" * 64)
    check_csrf(session, "f" * 64)
    with pytest.raises(Forbidden, match="out of date"):
        check_csrf(session, given)
