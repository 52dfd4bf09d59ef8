"""Who is calling: tokens in every slot, keys that we handed out (contract section 3)."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from proxy.authentication import Authenticator, HandedOut
from proxy.call import Call, Directions
from proxy.destinations import parse_registration
from proxy.errors import BadCall, BadRequest, Forbidden, RelayError, Unauthorized, Unavailable
from proxy.grant import Client
from proxy.messages import Fields
from proxy.services import load_services
from tests.support.clock import FakeClock
from tests.support.outbound import Body
from tests.support.vaults import begin
from vault import Backend, NewKey, NewToken, Secret, StoreUnavailable, Vault, open_vault

SERVICES = load_services()
OPENAI = Directions("https://api.openai.com/v1/models", "openai")
KEY = b"sk-test-0123456789abcdef"


@dataclass
class Door:
    """The authenticator in front of a real vault."""

    vault: Vault
    clock: FakeClock
    authenticator: Authenticator
    token: str = ""

    async def __call__(
        self, *fields: tuple[str, str], asked: Directions | RelayError = OPENAI
    ) -> Client:
        sent: Fields = tuple((name.encode(), text.encode()) for name, text in fields)
        return await self.authenticator.authenticate(Call("GET", asked, sent, Body(), "id"))


@pytest.fixture
async def door(tmp_path: Path) -> AsyncIterator[Door]:
    clock = FakeClock()
    begin(tmp_path / "data")
    vault = await open_vault(tmp_path / "data", {}, clock, actor="test")
    _, token = await vault.issue_token(NewToken("default", "alice"))
    yield Door(vault, clock, Authenticator(vault, SERVICES, clock, HandedOut()), token)
    await vault.close()


def basic(text: str) -> str:
    return "Basic " + base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("proxy-authorization", "Bearer {}"),
        ("x-relay-token", "{}"),
        ("authorization", "Bearer {}"),
        ("authorization", "bearer {}"),
        ("authorization", "Token {}"),
        ("authorization", "Anything {}"),
        ("authorization", "Token token={}"),
        ("authorization", "{}"),
        ("x-api-key", "{}"),
        ("xi-api-key", "{}"),
        ("x-goog-api-key", "{}"),
        ("api-key", "{}"),
        ("dd-application-key", "{}"),
    ],
)
async def test_a_token_is_found_in_every_slot(door: Door, name: str, form: str) -> None:
    """Ours, Authorization in any scheme or bare, and the slots of the known services."""
    client = await door((name, form.format(door.token)))
    assert (client.name, client.tenant) == ("alice", "default")
    assert client.may_bring_own == (name in ("proxy-authorization", "x-relay-token"))


@pytest.mark.parametrize("form", ["{}:", "user:{}", ":{}", "{}:x"])
async def test_a_token_is_found_inside_basic(door: Door, form: str) -> None:
    """RFC 7617: as the user or as the password."""
    assert (await door(("authorization", basic(form.format(door.token))))).name == "alice"


async def test_a_token_is_found_in_the_called_services_parameter(door: Door) -> None:
    """For a service that carries its key in the query, by name or by host."""
    for service in ("google-maps", None):
        url = f"https://maps.googleapis.com/geocode?address=a&key={door.token}"
        assert (await door(asked=Directions(url, service))).name == "alice"
    elsewhere = Directions(f"https://api.openai.com/?key={door.token}", "openai")
    with pytest.raises(Unauthorized):
        await door(asked=elsewhere)


async def test_a_token_is_found_in_the_parameter_of_the_origins_service(
    door: Door,
) -> None:
    """The service may be found from a place that the admin set."""
    services = load_services({"google-maps": {"origin": "http://127.0.0.1:9/maps"}})
    door.authenticator = Authenticator(door.vault, services, door.clock, HandedOut())
    asked = Directions(f"http://127.0.0.1:9/maps/x?key={door.token}")
    assert (await door(asked=asked)).name == "alice"


async def test_the_first_that_looks_like_a_token_decides(door: Door) -> None:
    """A bad one in our own slot is not rescued by a good one behind it."""
    forged = door.token[:-1] + ("0" if door.token[-1] != "0" else "1")
    with pytest.raises(Unauthorized):
        await door(("x-relay-token", forged), ("authorization", f"Bearer {door.token}"))
    client = await door(("x-relay-token", "something"), ("authorization", f"Bearer {door.token}"))
    assert client.name == "alice"


async def test_every_reason_gives_the_same_401(door: Door) -> None:
    """No token, malformed, unknown, expired, revoked."""
    other, revoked = await door.vault.issue_token(NewToken("default", "gone"))
    await door.vault.revoke_token("default", other.id)
    end = door.clock.now() + 60
    _, expired = await door.vault.issue_token(NewToken("default", "late", expires_at=end))
    door.clock.advance(61)
    changed = door.token[:20] + ("A" if door.token[20] != "A" else "B") + door.token[21:]
    texts = ["Bearer " + text for text in (revoked, expired, changed, "kr_x", "sk-unknown", "")]
    said = set()
    for text in [*texts, basic("a:b"), "Basic !!!", "Basic " + "é"]:
        with pytest.raises(Unauthorized) as caught:
            await door(("authorization", text))
        said.add(caught.value.detail)
    with pytest.raises(Unauthorized) as caught:
        await door()
    assert {caught.value.detail} == said


async def test_401_comes_before_400(door: Door) -> None:
    """Nobody learns how calls are read without a token."""
    broken = BadCall("x")
    with pytest.raises(Unauthorized):
        await door(asked=broken)
    assert (await door(("x-relay-token", door.token), asked=broken)).name == "alice"


async def test_an_unreadable_destination_is_no_slot(door: Door) -> None:
    """The URL is judged later; here it only may hold a parameter."""
    with pytest.raises(Unauthorized):
        await door(asked=Directions("https://user@host/", None))


async def test_two_authorization_fields_are_refused(door: Door) -> None:
    """Nobody can tell which one was meant."""
    with pytest.raises(BadRequest, match="one Authorization"):
        await door(("authorization", f"Bearer {door.token}"), ("authorization", "Bearer x"))


@pytest.mark.parametrize(
    "fields_and_url",
    [
        (("x-note", "{}"), "https://api.openai.com/"),
        (("x-note", "a"), "https://api.openai.com/{}/x"),
        (("x-note", "a"), "https://api.openai.com/?a={}"),
        (("x-note", "a"), "https://api.openai.com/?{}"),
    ],
)
async def test_a_token_that_would_travel_on_is_refused(
    door: Door, fields_and_url: tuple[tuple[str, str], str]
) -> None:
    """In any other forwarded field, parameter or path segment: 400."""
    (name, text), url = fields_and_url
    asked = Directions(url.format(door.token), "openai")
    with pytest.raises(BadRequest, match="also stands"):
        await door(("x-relay-token", door.token), (name, text.format(door.token)), asked=asked)


async def test_a_percent_encoded_copy_is_refused_too(door: Door) -> None:
    """Decoded once, as an upstream would."""
    asked = Directions("https://api.openai.com/?a=" + door.token.replace("_", "%5F"), "openai")
    with pytest.raises(BadRequest, match="also stands"):
        await door(("x-relay-token", door.token), asked=asked)


async def test_another_token_that_would_travel_on_is_refused_too(door: Door) -> None:
    """Whosever it is; with a handed-out key as credential as well."""
    _, other = await door.vault.issue_token(NewToken("other", "bob"))
    for name, text in (("x-note", other), ("x-request-id", f"id:{other}")):
        with pytest.raises(BadRequest, match="also stands"):
            await door(("x-relay-token", door.token), (name, text))
    await hand_out(door)
    with pytest.raises(BadRequest, match="also stands"):
        await door(("x-api-key", KEY.decode()), ("x-note", other))


@pytest.mark.parametrize("name", ["cookie", "referer", "x-forwarded-uri", "x_note"])
async def test_a_copy_in_a_field_that_is_not_forwarded_is_no_harm(door: Door, name: str) -> None:
    """A page's address may hold it."""
    await door(("x-relay-token", door.token), (name, f"https://app.example/?t={door.token}"))


@pytest.mark.parametrize("form", ["{}", "Bearer {}", "Basic {basic}", "token={}"])
async def test_a_token_is_never_the_callers_own_key(door: Door, form: str) -> None:
    """An SDK that is given the token twice must not send it to the provider."""
    text = form.format(door.token, basic=basic(f"{door.token}:").removeprefix("Basic "))
    own = ("x-relay-token", door.token)
    assert (await door(own, ("x-api-key", "own"))).may_bring_own
    for name in ("authorization", "x-api-key"):
        assert not (await door(own, (name, text))).may_bring_own
    url = f"https://maps.googleapis.com/geocode?key=own&key={door.token}"
    assert not (await door(own, asked=Directions(url, "google-maps"))).may_bring_own


async def test_a_copy_in_a_slot_that_is_stripped_is_no_harm(door: Door) -> None:
    """Some SDKs send their key twice."""
    await door(("authorization", f"Bearer {door.token}"), ("x-api-key", door.token))
    url = f"https://maps.googleapis.com/geocode?key={door.token}"
    await door(("x-relay-token", door.token), asked=Directions(url, "google-maps"))


async def test_a_token_that_may_only_read_does_not_call(door: Door) -> None:
    """Roles: call, read, admin."""
    _, reader = await door.vault.issue_token(NewToken("default", "reader", role="read"))
    with pytest.raises(Forbidden, match="role read"):
        await door(("x-relay-token", reader))
    _, admin = await door.vault.issue_token(NewToken("default", "boss", role="admin"))
    assert (await door(("x-relay-token", admin))).name == "boss"


async def test_what_a_token_is_for_reaches_the_client(door: Door) -> None:
    """Services, aliases and the tenant's holdings."""
    new = NewToken("team", "bob", services=frozenset({"openai"}), key_aliases={"openai": "b"})
    _, token = await door.vault.issue_token(new)
    client = await door(("authorization", f"Bearer {token}"))
    assert (client.tenant, client.services) == ("team", frozenset({"openai"}))
    assert client.key_aliases == {"openai": "b"}


async def hand_out(door: Door, tenant: str = "default", backend: bool = True) -> None:
    await door.vault.put_key(NewKey(tenant, "openai", "default", {"key": Secret(KEY)}))
    if backend:
        place = parse_registration("http://10.0.0.1/b")
        await door.vault.add_backend(Backend(tenant, "openai", place))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("authorization", "Bearer " + KEY.decode()),
        ("authorization", KEY.decode()),
        ("x-api-key", KEY.decode()),
        ("authorization", basic(KEY.decode() + ":")),
    ],
)
async def test_a_key_that_we_handed_out_is_a_credential(door: Door, name: str, text: str) -> None:
    """A backend calls us with the key that it received, in any slot."""
    await hand_out(door)
    client = await door((name, text))
    assert [key.service for key in client.handed_out] == ["openai"]
    assert client.name == "key:openai/default"


async def test_a_key_is_none_where_nobody_was_handed_it(door: Door) -> None:
    """Only where (tenant, service) has a backend."""
    await hand_out(door, backend=False)
    with pytest.raises(Unauthorized):
        await door(("authorization", "Bearer " + KEY.decode()))


async def test_handed_out_keys_can_be_turned_off(door: Door) -> None:
    """`accept_handed_out: false`."""
    await hand_out(door)
    off = HandedOut(accepted=False)
    closed = Door(door.vault, door.clock, Authenticator(door.vault, SERVICES, door.clock, off))
    with pytest.raises(Unauthorized):
        await closed(("authorization", "Bearer " + KEY.decode()))


async def test_a_rotated_key_stays_valid_for_the_grace_and_a_removed_one_ends(door: Door) -> None:
    """An hour by default; removal ends all versions at once."""
    await hand_out(door)
    fresh = {"key": Secret(b"sk-test-fresh-0123456789")}
    await door.vault.rotate_key("default", "openai", "default", fresh)
    door.clock.advance(3599)
    assert await door(("authorization", "Bearer " + KEY.decode()))
    door.clock.advance(1)
    with pytest.raises(Unauthorized):
        await door(("authorization", "Bearer " + KEY.decode()))
    assert await door(("authorization", "Bearer sk-test-fresh-0123456789"))
    await door.vault.remove_key("default", "openai", "default")
    with pytest.raises(Unauthorized):
        await door(("authorization", "Bearer sk-test-fresh-0123456789"))


async def test_a_key_of_several_tenants_names_nobody(door: Door) -> None:
    """401 that says to send X-Relay-Token."""
    await hand_out(door)
    await hand_out(door, "other")
    with pytest.raises(Unauthorized, match="X-Relay-Token"):
        await door(("authorization", "Bearer " + KEY.decode()))
    assert (await door(("x-relay-token", door.token))).name == "alice"


async def test_a_vault_that_is_out_is_503_never_401(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A valid token is never called bad because of our disk."""

    async def gone(_: bytes) -> None:
        raise StoreUnavailable("locked")

    monkeypatch.setattr(door.vault, "verify_token", gone)
    with pytest.raises(Unavailable):
        await door(("authorization", f"Bearer {door.token}"))


async def test_a_page_is_asked_with_a_token_of_any_role(door: Door) -> None:
    """Whose it is; a handed-out key is none, and every reason gives the same 401."""
    _, reader = await door.vault.issue_token(NewToken("default", "bob", role="read"))
    for text, name in ((door.token, "alice"), (reader, "bob")):
        holder = await door.authenticator.holder(((b"authorization", b"Bearer " + text.encode()),))
        assert holder.name == name
    await hand_out(door)
    for fields in ((), ((b"authorization", b"Bearer " + KEY),), ((b"x-relay-token", b"kr_no"),)):
        with pytest.raises(Unauthorized):
            await door.authenticator.holder(fields)
