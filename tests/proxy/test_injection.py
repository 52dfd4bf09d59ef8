from __future__ import annotations

import base64
import json
from urllib.parse import parse_qsl, quote, unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import InternalError
from proxy.injection import EchoMatcher, Message, check_credential, inject
from proxy.services import Part, Service, Services, Slot, load_services
from vault import Credential, Secret

SERVICES: Services = load_services()
KEY = "sk-test/4f+9A==&x"
BEARER = Slot("header", "Authorization", "Bearer {key}")
QUERY = Slot("query", "key", "{key}")
BOT = Slot("path", "bot", "bot{key}", ("file",))
KEYS = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=8, max_size=60)


def credential(**parts: str | bytes) -> Credential:
    return {
        name: Secret(text.encode() if isinstance(text, str) else text)
        for name, text in parts.items()
    }


def service(name: str) -> Service:
    found = SERVICES.get(name)
    assert found is not None
    return found


def one_slot(slot: Slot, *parts: Part) -> Service:
    return Service("mine", "custom", (), (slot,), (), parts=parts or (Part("key", "API key"),))


def query_of(before: str | None, key: str = KEY) -> str | None:
    return inject((QUERY,), credential(key=key), Message((), "/", before)).query


def path_of(path: str, key: str = "12:ab") -> str:
    return inject((BOT,), credential(key=key), Message((), path)).path


def test_header_replaces_every_field_of_its_name() -> None:
    """Exactly this service's credential stands in its slot."""
    fields = ((b"authorization", b"Bearer mine"), (b"accept", b"*/*"), (b"authorization", b"2"))
    message = inject((BEARER,), credential(key="k1"), Message(fields, "/v1", "a=1"))
    assert message == Message(((b"accept", b"*/*"), (b"authorization", b"Bearer k1")), "/v1", "a=1")


def test_every_slot_is_written() -> None:
    """Two secrets, what may be shown, and the host that is called."""
    datadog = inject(
        service("datadog").slots, credential(key="a", application_key="b"), Message((), "/")
    )
    assert datadog.fields == ((b"dd-api-key", b"a"), (b"dd-application-key", b"b"))
    rapid = inject(
        service("rapidapi").slots, credential(key="a"), Message((), "/"), "x.p.rapidapi.com"
    )
    assert rapid.fields == ((b"x-rapidapi-key", b"a"), (b"x-rapidapi-host", b"x.p.rapidapi.com"))


def test_a_template_without_a_host_has_an_empty_one() -> None:
    """Where nothing is called yet."""
    message = inject((Slot("header", "X-Host", "<{host}>"),), credential(key="k"), Message((), "/"))
    assert message.fields == ((b"x-host", b"<>"),)


def test_name_and_value_of_a_parameter_are_encoded() -> None:
    """All but the unreserved characters (RFC 3986 section 2.3), the slash too."""
    slot = Slot("query", "a/b", "{key}")
    assert inject((slot,), credential(key="c/d"), Message((), "/")).query == "a%2Fb=c%2Fd"


def test_a_key_that_looks_like_a_template_stays_as_it_is() -> None:
    """Templates are filled once."""
    message = inject((BEARER,), credential(key="{host}{key}"), Message((), "/"), "h")
    assert message.fields == ((b"authorization", b"Bearer {host}{key}"),)


def test_basic_is_base64_of_user_and_password() -> None:
    """RFC 7617 section 2."""
    twilio = credential(account_sid="AC1", key="t:o")
    message = inject(service("twilio").slots, twilio, Message((), "/"))
    assert message.fields == ((b"authorization", b"Basic " + base64.b64encode(b"AC1:t:o")),)
    mailgun = inject(service("mailgun").slots, credential(key="k"), Message((), "/"))
    assert mailgun.fields == ((b"authorization", b"Basic " + base64.b64encode(b"api:k")),)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (None, "key=K"),
        ("", "key=K"),
        ("a=1&b", "a=1&b&key=K"),
        ("key=mine", "key=K"),
        ("a=1&key=mine&%6bey=2&key&b=%2F+", "a=1&b=%2F+&key=K"),
        ("keys=1&Key=2", "keys=1&Key=2&key=K"),
    ],
)
def test_query_is_replaced_and_appended(before: str | None, after: str) -> None:
    """The caller's parameter of that name goes, all others stay octet for octet."""
    assert query_of(before, "K") == after


@given(st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1))
def test_query_value_is_the_key_whatever_is_in_it(key: str) -> None:
    """Percent-encoded, so that it is one parameter and nothing else."""
    query = query_of("a=1", key)
    assert query is not None
    assert parse_qsl(query, strict_parsing=True, keep_blank_values=True) == [
        ("a", "1"),
        ("key", key),
    ]


@pytest.mark.parametrize(
    ("path", "after"),
    [
        ("/getMe", "/bot12:ab/getMe"),
        ("/", "/bot12:ab/"),
        ("/bot/getMe", "/bot12:ab/getMe"),
        ("/bot", "/bot12:ab"),
        ("/bot99:theirs/getMe", "/bot12:ab/getMe"),
        ("/file/docs/a.txt", "/file/bot12:ab/docs/a.txt"),
        ("/file/bot/docs/a.txt", "/file/bot12:ab/docs/a.txt"),
        ("/file/bot99:theirs/a", "/file/bot12:ab/a"),
        ("/file", "/bot12:ab/file"),
        ("/file/bot", "/file/bot12:ab"),
        ("/file/a", "/file/bot12:ab/a"),
        ("/a/bot/b", "/bot12:ab/a/bot/b"),
    ],
)
def test_path_holds_the_key_in_its_segment(path: str, after: str) -> None:
    """In place of an empty or foreign one, else in front, or behind `file`."""
    assert path_of(path) == after


def test_path_without_letters_of_its_own_is_always_put_in_front() -> None:
    """No segment of the caller's can be told from the key's."""
    slot = Slot("path", "", "{key}")
    assert inject((slot,), credential(key="k"), Message((), "/a")).path == "/k/a"


@given(KEYS)
def test_path_stays_one_segment(key: str) -> None:
    """Slashes and question marks of a key are encoded (RFC 3986 section 3.3)."""
    first, second = path_of("/getMe", key)[1:].split("/")
    assert unquote(first) == "bot" + key
    assert second == "getMe"
    assert "?" not in first and "#" not in first


@pytest.mark.parametrize("octets", [b"a\r\nb: c", b"a\nb", b"a\x00", b"\x7f", b"a\tb"])
@pytest.mark.parametrize("slot", [BEARER, QUERY, BOT, Slot("basic", "Authorization", "u:{key}")])
def test_a_key_that_cannot_be_sent_is_an_error_of_ours(slot: Slot, octets: bytes) -> None:
    """A 500 that does not show it."""
    with pytest.raises(InternalError) as caught:
        inject((slot,), credential(key=octets), Message((), "/"))
    assert caught.value.detail == "the stored key can't be sent; ask the admin to add it again"
    assert repr(octets)[2:-1] not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_missing_part_is_an_error_of_ours() -> None:
    """The service may have got a second secret since the key was stored."""
    with pytest.raises(InternalError) as caught:
        inject(service("datadog").slots, credential(key="a"), Message((), "/"))
    assert caught.value.detail == "the stored key lacks a part; ask the admin to add it again"


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("openai", {"key": "sk-proj-abc"}),
        ("openai", {"key": "x" * 8192}),
        ("datadog", {"key": "a", "application_key": "b"}),
        ("zendesk", {"email": "me@example.com", "key": "token"}),
        ("jira", {"email": "me@example.com", "key": "pass word: ü"}),
        ("telegram", {"key": "12:ab"}),
        ("onesignal", {"key": "Basically-random"}),
    ],
)
def test_a_good_credential_is_taken(name: str, parts: dict[str, str]) -> None:
    """Every part is there and can stand where it must."""
    check_credential(service(name), credential(**parts))


@pytest.mark.parametrize(
    ("name", "parts", "sentence"),
    [
        ("ollama", {"key": "a"}, "ollama needs no key"),
        ("openai", {}, "openai needs the API key too (part key)"),
        ("datadog", {"key": "a"}, "datadog needs the Application key too (part application_key)"),
        ("openai", {"key": "a", "id": "b"}, "openai has no part id, only key"),
        (
            "datadog",
            {"key": "a", "application_key": "b", "id": "c"},
            "datadog has no part id, only key, application_key",
        ),
        ("openai", {"key": ""}, "the API key is empty"),
        ("openai", {"key": " a"}, "the API key has white space around it"),
        ("openai", {"key": "a\n"}, "the API key has white space around it"),
        (
            "openai",
            {"key": "a\nb"},
            "the API key has a line break or another control character in it",
        ),
        (
            "zendesk",
            {"email": "a", "key": "a\x00b"},
            "the API token has a line break or another control character in it",
        ),
        ("openai", {"key": "x" * 8193}, "the API key is longer than 8192 octets"),
        ("openai", {"key": "schlüssel"}, "the API key has characters outside ASCII in it"),
        ("rawg", {"key": "schlüssel"}, "the API key has characters outside ASCII in it"),
        (
            "twilio",
            {"account_sid": "a:b", "key": "c"},
            "the Account SID must not have a colon in it",
        ),
        ("vonage", {"key": "a:b", "api_secret": "c"}, "the API key must not have a colon in it"),
        ("openai", {"key": "bearer sk-1"}, "the API key has a prefix that keyrelay writes itself"),
        (
            "pagerduty",
            {"key": "Token token=1"},
            "the API key has a prefix that keyrelay writes itself",
        ),
    ],
)
def test_a_bad_credential_is_named(name: str, parts: dict[str, str], sentence: str) -> None:
    """One sentence with the part's title, before anything is stored; never its value."""
    with pytest.raises(ValueError) as caught:
        check_credential(service(name), credential(**parts))
    assert str(caught.value) == sentence


USER_AND_KEY = (Part("user", "user", secret=False), Part("key", "key"))


def test_a_colon_may_stand_behind_the_first_one_of_basic() -> None:
    """RFC 7617 section 2: only a user-id can't hold one."""
    mine = one_slot(Slot("basic", "Authorization", "{user}:{key}:x"), *USER_AND_KEY)
    check_credential(mine, credential(user="a", key="b:c"))
    with pytest.raises(ValueError, match="the user must not have a colon in it"):
        check_credential(mine, credential(user="a:b", key="c"))


def test_a_prefix_is_what_stands_before_the_first_placeholder() -> None:
    """A template may hold its part twice."""
    mine = one_slot(Slot("header", "Authorization", "Key {key}, again {key}"))
    with pytest.raises(ValueError, match="the API key has a prefix that keyrelay writes itself"):
        check_credential(mine, credential(key="key abc"))


@pytest.mark.parametrize(
    "echo",
    [
        KEY,
        quote(KEY, safe=""),
        quote(KEY, safe="").lower().replace("sk-test%2f4f%2b9a", "sk-test%2f4f%2b9A"),
        quote(KEY),
        KEY.replace("/", "\\/"),
    ],
)
def test_an_echo_is_found_in_every_spelling(echo: str) -> None:
    """As it is, percent-encoded in either case of digits, escaped in JSON."""
    matcher = EchoMatcher.of(credential(key=KEY), service("openai"))
    assert matcher.in_value(b"before " + echo.encode() + b" after")
    assert not matcher.in_value(b"before " + echo.encode()[:-1])


def test_an_echo_in_basic_form_is_found() -> None:
    """The base64 of user and password, also where the password alone is short."""
    matcher = EchoMatcher.of(credential(account_sid="AC12345678", key="short"), service("twilio"))
    assert matcher.in_value(b"Basic " + base64.b64encode(b"AC12345678:short"))
    assert not matcher.in_value(b"AC12345678 short")


def test_a_basic_form_without_a_secret_is_not_looked_for() -> None:
    """It stands in answers that tell nothing."""
    mine = one_slot(Slot("basic", "Authorization", "{user}:fixed"), *USER_AND_KEY)
    matcher = EchoMatcher.of(credential(user="AC12345678", key="long enough"), mine)
    assert not matcher.in_value(base64.b64encode(b"AC12345678:fixed"))


def test_the_whole_key_is_looked_for_as_json_spells_it() -> None:
    """Nothing is left away at its ends."""
    key = 'q"uo\\te/ü-0123'
    matcher = EchoMatcher.of(credential(key=key), service("openai"))
    for spelled in (json.dumps(key)[1:-1], json.dumps(key)[1:-1].replace("/", r"\/")):
        assert matcher.in_value(spelled.encode())
        assert not matcher.in_value(spelled.encode()[1:])
        assert not matcher.in_value(spelled.encode()[:-1])


@pytest.mark.parametrize("place", range(1, 14))
def test_an_echo_is_found_wherever_a_stream_is_cut(place: int) -> None:
    """Of a key without other spellings nothing but its own length is kept back."""
    scanner = EchoMatcher.of(credential(key="sk-0123456789x"), service("openai")).scanner()
    assert not scanner.feed(b"sk-0123456789x"[:place])
    assert scanner.feed(b"sk-0123456789x"[place:])


def test_a_search_begins_with_nothing() -> None:
    """What stands in an answer counts, and only that."""
    scanner = EchoMatcher.of(credential(key="XXXX01234567"), service("openai")).scanner()
    assert not scanner.feed(b"01234567")


def test_what_may_be_shown_or_is_short_is_not_looked_for() -> None:
    """An account id stands in every answer; seven octets stand anywhere by chance."""
    matcher = EchoMatcher.of(
        credential(application_id="APPLICATION", key="1234567"), service("algolia")
    )
    assert not matcher.in_value(b"APPLICATION 1234567")
    scanner = matcher.scanner()
    assert not scanner.feed(b"APPLICATION 1234567")


def test_missing_parts_are_not_looked_for() -> None:
    """An incomplete credential has no basic form."""
    matcher = EchoMatcher.of(credential(key="long enough"), service("twilio"))
    assert matcher.in_value(b"long enough")
    assert not EchoMatcher.of({}, service("openai")).in_value(b"anything")


def test_octets_that_are_no_text_are_looked_for() -> None:
    """Keys are octets."""
    matcher = EchoMatcher.of(credential(key=b"\xff\xfe23456789"), service("openai"))
    assert matcher.in_value(b"\xff\xfe23456789")
    assert matcher.in_value(b"%FF%FE23456789")


@given(KEYS, st.binary(max_size=40), st.binary(max_size=40), st.data())
def test_an_echo_across_pieces_is_found(
    key: str, before: bytes, after: bytes, data: st.DataObject
) -> None:
    """However a stream is cut, it is seen exactly when its last octet has come."""
    scanner = EchoMatcher.of(credential(key=key), service("openai")).scanner()
    text = before + key.encode() + after
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True):
        scanner.feed(text[start:end])
    assert scanner.found
    assert scanner.feed(b"")


@given(st.lists(st.binary(max_size=30), max_size=8))
def test_pieces_are_searched_like_the_whole(pieces: list[bytes]) -> None:
    """Neither more nor less is found than in one piece."""
    matcher = EchoMatcher.of(credential(key="\x00\x01" * 4), one_slot(BEARER))
    scanner = matcher.scanner()
    for piece in pieces:
        scanner.feed(piece)
    assert scanner.found == matcher.in_value(b"".join(pieces))


def test_nothing_shows_the_secret() -> None:
    """Matchers end up in tracebacks and logs."""
    matcher = EchoMatcher.of(credential(key=KEY), service("openai"))
    assert repr(matcher) == "EchoMatcher(…)"
    assert repr(matcher.scanner()) == "EchoScanner(found=False)"


@given(KEYS)
def test_an_injected_key_is_found_wherever_it_was_written(key: str) -> None:
    """What the four ways to carry write is what the matcher looks for."""
    key = key.replace(":", ".")
    for slot in (BEARER, QUERY, BOT, Slot("basic", "Authorization", "user:{key}")):
        message = inject((slot,), credential(key=key), Message((), "/m"))
        written = b" ".join(value for _, value in message.fields)
        whole = written + message.path.encode() + b"?" + (message.query or "").encode()
        assert EchoMatcher.of(credential(key=key), one_slot(slot)).in_value(whole)
