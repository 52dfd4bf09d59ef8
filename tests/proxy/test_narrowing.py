"""What a token is narrowed to, and whether a call stays within it (contract section 3)."""

from __future__ import annotations

import pytest

from proxy.destinations import parse_destination
from proxy.errors import BadDestination, Forbidden
from proxy.messages import Fields
from proxy.narrowing import canonical, check_call, narrowing_of
from vault import EVERY_CALL, Narrowing

PAGE = "https://app.example.com"


def within(
    narrowing: Narrowing,
    url: str = "https://api.openai.com/v1/models",
    method: str = "GET",
    fields: Fields = (),
) -> bool:
    try:
        check_call(narrowing, method, fields, parse_destination(url))
    except Forbidden as error:
        assert "api.openai.com" not in error.detail, "no address that the caller did not send"
        return False
    return True


@pytest.mark.parametrize(
    ("member", "said", "kept"),
    [
        ("hosts", "API.OpenAI.com", "api.openai.com"),
        ("hosts", "127.0.0.1", "127.0.0.1"),
        ("hosts", "::1", "::1"),
        ("hosts", "[::1]", "::1"),
        ("hosts", "münchen.example", "xn--mnchen-3ya.example"),
        ("paths", "/", "/"),
        ("paths", "/v1/chat/", "/v1/chat/"),
        ("methods", "post", "POST"),
        ("methods", "M-SEARCH", "M-SEARCH"),
        ("origins", PAGE, PAGE),
        ("origins", "chrome-extension://abc", "chrome-extension://abc"),
    ],
)
def test_a_bound_is_kept_in_its_canonical_form(member: str, said: str, kept: str) -> None:
    """As destinations, methods and origins stand in calls; each once."""
    assert canonical(member, [said, said]) == (kept,)


@pytest.mark.parametrize(
    ("member", "said"),
    [
        *(("hosts", one) for one in ("", "*", "*.a.example", "a.example:443", "a.example/", "a?b")),
        *(("hosts", one) for one in ("u@a.example", "a.example.", "[::1]:443", "010.0.0.1", "a b")),
        *(("paths", one) for one in ("", "v1", "/a/../b", "/a/%2e%2e/b", "/a%2Fb", "/a;b", "//a")),
        *(("paths", one) for one in ("/a?b", "/a#b", "/a b", "/ä", "/%", "/a%255C", "/a%00")),
        *(("methods", one) for one in ("", "CONNECT", "trace", "GE T", "GET,POST", "É")),
        *(("origins", one) for one in ("*", "null", PAGE + "/", "https://A.example", "a.example")),
    ],
)
def test_what_could_be_read_in_two_ways_is_no_bound(member: str, said: str) -> None:
    """Escapes and dot segments as everywhere else."""
    with pytest.raises(ValueError, match="expected"):
        canonical(member, [said])


def test_nothing_said_narrows_nothing() -> None:
    """Every call is within."""
    assert narrowing_of(Narrowing()) == EVERY_CALL
    assert within(EVERY_CALL, "https://any.example/a//b;c", "PURGE")


def test_a_host_is_exactly_that_host() -> None:
    """Neither below it nor beside it; on any port, for that the service's places say."""
    only = Narrowing(hosts=("api.openai.com",))
    assert within(only)
    assert not within(only, "https://x.api.openai.com/v1/models")
    assert not within(only, "https://api.openai.com.evil.example/v1/models")


@pytest.mark.parametrize(
    ("path", "good"),
    [
        ("/v1/chat", True),
        ("/v1/chat/completions", True),
        ("/v1/chat/", True),
        ("/v1/chat/%20", True),
        ("/v1/chats", False),
        ("/v1/Chat", False),
        ("/v1", False),
        ("/", False),
        ("/v1/%63hat", False),
        ("/v1/chat%2Fx", False),
        ("/v1/chat//x", False),
        ("/v1/chat/..;/files", False),
        ("/v1/chat/%252e%252e/files", False),
        ("/v1/chat%5C..%5Cfiles", False),
        ("/x/v1/chat", False),
    ],
)
def test_a_path_covers_itself_and_whole_segments_below(path: str, good: bool) -> None:
    """And only where every server reads the path alike."""
    url = f"https://api.openai.com{path}"
    try:
        parse_destination(url)
    except BadDestination:
        assert not good
        return
    assert within(Narrowing(paths=("/v1/chat", "/v2")), url) is good


def test_a_path_that_ends_with_a_slash_covers_only_what_is_below() -> None:
    """As the prefixes of backends do; `/` is all there is."""
    assert within(Narrowing(paths=("/v1/",)))
    assert not within(Narrowing(paths=("/v1/",)), "https://api.openai.com/v1/")
    assert within(Narrowing(paths=("/",)), "https://api.openai.com//x;y")


def test_a_method_is_listed_or_refused() -> None:
    """HEAD is no GET."""
    only = Narrowing(methods=("GET",))
    assert within(only)
    assert not within(only, method="HEAD")
    assert not within(only, method="get")


@pytest.mark.parametrize(
    ("sent", "good"),
    [
        ([PAGE], True),
        ([], False),
        (["null"], False),
        ([PAGE + "/"], False),
        ([PAGE.upper()], False),
        ([PAGE, PAGE], False),
        ([PAGE + " https://other.example"], False),
    ],
)
def test_with_origins_one_listed_origin_has_to_be_there(sent: list[str], good: bool) -> None:
    """No Origin, two of them or another one: refused."""
    fields = tuple((b"origin", one.encode()) for one in sent)
    assert within(Narrowing(origins=(PAGE,)), fields=fields) is good


def test_all_members_hold_at_once() -> None:
    """One of them is not enough."""
    only = Narrowing(("api.openai.com",), ("/v1/models",), ("GET",), (PAGE,))
    fields = ((b"origin", PAGE.encode()),)
    assert within(only, fields=fields)
    assert not within(only, "https://api.openai.com/v1/files", fields=fields)
    assert not within(only, method="POST", fields=fields)
    assert not within(only)
