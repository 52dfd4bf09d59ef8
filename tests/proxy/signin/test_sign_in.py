"""Sign-in tokens over real sockets: what a frontend's own login gives is enough to call with."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from proxy.authentication import Authenticator, HandedOut
from proxy.call import Call, Directions
from proxy.config import Config, ConfigError, load_config
from proxy.config.signin import IssuerEntry
from proxy.errors import BadRequest, Forbidden, TooManyGuesses, Unauthorized, Unavailable
from proxy.grant import Client
from proxy.guesses import Guesses
from proxy.limits.grammar import parse_rate
from proxy.messages import Fields
from proxy.services import load_services
from proxy.signin.fetching import Failed
from proxy.signin.jwt import encode
from proxy.signin.keyring import AGAIN_SECONDS, FRESH_SECONDS
from proxy.signin.tokens import SignIn
from proxy.wrongs import UNBOUNDED, Wrongs
from tests.support.clock import FakeClock
from tests.support.issuer import (
    ALGORITHMS,
    NOW,
    Issuer,
    Signer,
    key_set,
    with_shared_secret,
)
from tests.support.origin import Origin, json_reply
from tests.support.outbound import Body
from tests.support.relay import Running, running_relay
from vault import NewToken, Vault, open_vault

ISSUER = "https://login.example.com"
SERVICES = load_services()
PEER = "192.0.2.1"


def entry(**other: Any) -> IssuerEntry:
    usual = {"name": "login", "issuer": ISSUER, "audience": "keyrelay"}
    return IssuerEntry.model_validate({**usual, **other})


# Without sockets: what the authentication makes of them.


@dataclass
class Desk:
    """The authenticator before a vault and an issuer that a test makes up."""

    vault: Vault
    clock: FakeClock
    token: str = ""
    signers: list[Signer] = field(default_factory=lambda: [Signer()])
    fetched: int = 0
    down: bool = False

    def open(self, wrongs: Wrongs = UNBOUNDED, **other: Any) -> None:
        self.sign_in = SignIn([entry(**other)], self, self.clock)
        self.door = Authenticator(self.vault, SERVICES, self.clock, HandedOut(), wrongs)
        self.door.also_by(self.sign_in)

    async def keys(self, _: IssuerEntry) -> bytes:
        self.fetched += 1
        if self.down:
            raise Failed("it is down")
        return json.dumps(key_set(self.signers)).encode()

    def claims(self, **other: Any) -> dict[str, Any]:
        usual = {"iss": ISSUER, "aud": "keyrelay", "sub": "ann", "exp": NOW + 600}
        return {**usual, **other}

    def jwt(self, **other: Any) -> str:
        return self.signers[0].sign(self.claims(**other))

    async def __call__(self, *fields: tuple[str, str], url: str = "") -> Client:
        sent: Fields = tuple((name.encode(), text.encode()) for name, text in fields)
        asked = Directions(url or "https://api.openai.com/v1/models", "openai")
        return await self.door.authenticate(Call("GET", asked, sent, Body(), "id", peer=PEER))

    async def why(self, text: str) -> str:
        """Why a token is refused; what its holder is told is always the same."""
        with pytest.raises(Unauthorized) as caught:
            await self(("authorization", f"Bearer {text}"))
        with pytest.raises(Unauthorized) as plain:
            await self(("authorization", "Bearer kr_x"))
        assert caught.value.detail == plain.value.detail
        return caught.value.why


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    clock = FakeClock(float(NOW))
    vault = await open_vault(tmp_path / "data", {}, clock, create=True, actor="test")
    _, text = await vault.issue_token(NewToken("default", "alice"))
    found = Desk(vault, clock, text)
    found.open()
    yield found
    await found.sign_in.stop()
    await vault.close()


async def test_whoever_signs_in_calls_by_name(desk: Desk) -> None:
    """With each algorithm: as issuer/subject, for the entry's tenant, until the token is over."""
    for alg in ALGORITHMS:
        desk.signers = [Signer(alg)]
        desk.open(algorithms=[alg], tenant="research")
        client = await desk(("authorization", f"Bearer {desk.jwt()}"))
        assert (client.name, client.tenant) == ("login/ann", "research")
        assert client.good_until == NOW + 630
        assert client.token_id.startswith("login/")
        assert client.services is None


async def test_it_is_found_where_platform_tokens_are(desk: Desk) -> None:
    """In every slot; the first that looks like a token of either kind decides."""
    for name, form in (
        ("proxy-authorization", "Bearer {}"),
        ("x-relay-token", "{}"),
        ("authorization", "{}"),
        ("x-api-key", "{}"),
    ):
        client = await desk((name, form.format(desk.jwt())))
        assert client.name == "login/ann"
        assert client.may_bring_own == (name in ("proxy-authorization", "x-relay-token"))
        first = await desk(("x-relay-token", desk.token), (name, form.format(desk.jwt())))
        assert first.name == ("login/ann" if name == "proxy-authorization" else "alice")


async def test_an_id_is_the_same_each_time_and_in_each_tenant_another(desk: Desk) -> None:
    """What its calls are counted by."""
    desk.open(tenant_claim="org", tenants={"a": "one", "b": "two"})
    asked = [("ann", "a"), ("ann", "a"), ("ann", "b"), ("bob", "a")]
    found = [
        (await desk(("x-relay-token", desk.jwt(sub=sub, org=org, jti=str(n))))).token_id
        for n, (sub, org) in enumerate(asked)
    ]
    assert found[0] == found[1]
    assert len(set(found)) == 3


async def test_every_reason_gives_the_same_401(desk: Desk) -> None:
    """The log alone is told which, without a claim's text."""
    signer, public = desk.signers[0], Signer("RS256", kid="rsa")
    pem = public.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    desk.signers = [signer, public]
    good = desk.jwt()
    head, claims, _ = good.split(".")
    unsigned = encode(b'{"alg":"none"}').decode()
    said = {
        "algorithm": [
            with_shared_secret(pem, desk.claims()),
            with_shared_secret(json.dumps(public.jwk()).encode(), desk.claims()),
            f"{unsigned}.{claims}.{encode(b'x').decode()}",
            Signer("EdDSA").sign(desk.claims()),
        ],
        "no key": [signer.sign(desk.claims(), kid="x"), signer.sign(desk.claims(), alg="RS256")],
        "signature": [
            Signer(which="b").sign(desk.claims()),
            f"{head}.{claims}.{encode(bytes(64)).decode()}",
        ],
        "(aud)": [desk.jwt(aud="other")],
        "(exp)": [desk.jwt(exp=NOW - 30)],
        "(nbf)": [desk.jwt(nbf=NOW + 31)],
        "(sub)": [desk.jwt(sub="")],
        "does not name": [desk.jwt(iss="https://other.example.com")],
        "not taken": [
            f"{unsigned}.{claims}.",
            desk.signers[0].sign(desk.claims(), jku="https://x"),
        ],
    }
    for words, texts in said.items():
        for text in texts:
            why = await desk.why(text)
            assert words in why
            assert "ann" not in why


async def test_a_token_of_nobody_is_refused_and_left_alone(desk: Desk) -> None:
    """A JWT of another issuer may be a provider's key: beside ours it is the caller's own."""
    foreign = desk.jwt(iss="https://provider.example.com")
    client = await desk(("x-relay-token", desk.token), ("authorization", f"Bearer {foreign}"))
    assert client.may_bring_own
    own = await desk(("x-relay-token", desk.token), ("authorization", f"Bearer {desk.jwt()}"))
    assert not own.may_bring_own


async def test_it_never_travels_on(desk: Desk) -> None:
    """In any forwarded field, parameter or path segment: 400 (contract section 3)."""
    text = desk.jwt()
    note = ("x-note", text)
    for path, *fields in (("/", note), (f"/{text}",), (f"/?a={text}",), (f"/?a=%65{text[1:]}",)):
        with pytest.raises(BadRequest, match="also stands"):
            await desk(("x-relay-token", text), *fields, url=f"https://api.openai.com{path}")


async def test_what_was_verified_is_known_again_until_it_is_over(desk: Desk) -> None:
    """Then it is refused, whatever is remembered."""
    text = desk.jwt()
    first = await desk.sign_in.verify(text.encode())
    assert await desk.sign_in.verify(text.encode()) is first
    desk.clock.advance(629)
    assert await desk.sign_in.verify(text.encode()) is first
    desk.clock.advance(1)
    assert "(exp)" in await desk.why(text)


async def test_a_key_that_its_issuer_takes_back_ends_what_it_signed(desk: Desk) -> None:
    """With the next fetch, at latest after ten minutes; a new key is found at once."""
    text = desk.jwt(exp=NOW + 10**6)
    await desk(("x-relay-token", text))
    generation = desk.sign_in.generation
    desk.signers = [Signer(kid="two", which="b")]
    desk.clock.advance(AGAIN_SECONDS)
    assert (await desk(("x-relay-token", desk.jwt()))).name == "login/ann"
    assert desk.sign_in.generation != generation
    assert "no key" in await desk.why(text)


async def test_the_issuers_are_what_the_configuration_says_now(desk: Desk) -> None:
    """Who stays as it was keeps its keys; who is gone is nobody; an equal list is no change."""
    text = desk.jwt()
    await desk(("x-relay-token", text))
    before = desk.sign_in.generation
    desk.sign_in.become([entry()])
    assert desk.sign_in.generation == before
    desk.sign_in.become([entry(), entry(name="more", issuer="https://more.example.com")])
    await desk(("x-relay-token", text))
    assert desk.fetched == 1
    desk.sign_in.become([entry(audience="changed")])
    assert "(aud)" in await desk.why(text)
    desk.sign_in.become([])
    assert not desk.sign_in.knows(text.encode())
    assert desk.sign_in.describe(text.encode()) == ""
    with pytest.raises(Unauthorized) as caught:
        await desk.sign_in.verify(text.encode())
    assert "no longer" in caught.value.why


async def test_without_keys_it_is_503_never_401(desk: Desk) -> None:
    """A good token is never called bad because its issuer is down."""
    desk.down = True
    with pytest.raises(Unavailable):
        await desk(("authorization", f"Bearer {desk.jwt()}"))


async def test_it_is_for_calls_alone(desk: Desk) -> None:
    """No page beside /proxy takes it, and a wrong one is a wrong token there too."""
    fields = ((b"authorization", b"Bearer " + desk.jwt().encode()),)
    with pytest.raises(Forbidden, match="calls alone"):
        await desk.door.holder(fields)
    wrong = ((b"authorization", b"Bearer " + desk.jwt(aud="x").encode()),)
    with pytest.raises(Unauthorized):
        await desk.door.holder(wrong)


async def test_keys_are_fetched_before_anybody_calls_and_a_stop_ends_that(desk: Desk) -> None:
    """Nobody waits for an issuer at the start; a change begins it too."""
    hold, began = asyncio.Event(), asyncio.Event()

    class Slow:
        async def keys(self, _: IssuerEntry) -> bytes:
            began.set()
            await hold.wait()
            return b"{}"

    one = SignIn([], Slow(), desk.clock)
    await one.start()
    one.become([entry()])
    await asyncio.wait_for(began.wait(), 10)
    one.become([])
    await one.stop()
    assert not hold.is_set()


async def test_a_thousand_keys_are_no_trouble(desk: Desk) -> None:
    """The one that is named is found among them."""
    many = [Signer(kid=f"key-{number}") for number in range(999)]
    desk.signers = [Signer(kid="mine", which="b"), *many]
    assert (await desk(("x-relay-token", desk.jwt()))).name == "login/ann"


# With sockets.


@dataclass
class Town:
    """A server, its issuer, a provider, and a caller."""

    up: Running
    issuer: Issuer
    origin: Origin
    client: httpx.AsyncClient
    clock: FakeClock

    async def call(self, token: str, path: str = "/v1/models", **fields: str) -> httpx.Response:
        params = {"server": f"{self.origin.url}{path}", "service": "openai"}
        sent = {"Authorization": f"Bearer {token}", **fields}
        return await self.client.get(f"{self.up.url}/proxy", params=params, headers=sent)


@contextlib.asynccontextmanager
async def town(data: Path, more: str = "", **other: Any) -> AsyncIterator[Town]:
    clock = FakeClock(float(NOW))
    async with (
        Issuer() as issuer,
        Origin(json_reply({"data": []})) as origin,
    ):
        one = {"name": "login", "issuer": issuer.url, "audience": "keyrelay", **other}
        settings = yaml.safe_dump({"sign_in": [one]}) + more
        services = {"openai": {"origin": origin.url}}
        async with (
            running_relay(data, services, settings, clock) as up,
            httpx.AsyncClient() as client,
        ):
            await up.add_key("openai", key="sk-canary-0123456789abcdefghij")
            yield Town(up, issuer, origin, client, clock)


async def test_a_login_is_enough(tmp_path: Path) -> None:
    """The provider sees its key, and nothing of the token."""
    async with town(tmp_path / "data") as one:
        text = one.issuer.token()
        for _ in range(3):
            answer = await one.call(text)
            assert answer.status_code == 200
        assert one.origin.last.header("authorization") == "Bearer sk-canary-0123456789abcdefghij"
        assert text not in str([one.origin.last.headers, one.origin.last.target])
        one.clock.advance(630)
        assert (await one.call(text)).status_code == 401
        assert one.issuer.asked.count("/keys.json") == 1


async def test_what_those_who_sign_in_may_is_bounded(tmp_path: Path) -> None:
    """By the entry's services, hosts, paths, methods and origins."""
    page = "https://app.example.com"
    bounds = {"paths": ["/v1/models"], "methods": ["get"], "origins": [page]}
    async with town(tmp_path / "data", hosts=["127.0.0.1"], **bounds) as one:
        text = one.issuer.token()
        assert (await one.call(text, Origin=page)).status_code == 200
        assert (await one.call(text, Origin="https://evil.example.com")).status_code == 403
        assert (await one.call(text, "/v1/other", Origin=page)).status_code == 403


async def test_a_limit_holds_for_each_of_them(tmp_path: Path) -> None:
    """`login/*`, and the nearer word for one."""
    quotas = (
        "limits: {quotas: [{token: 'login/*', calls: 1/day}, {token: login/bob, calls: 2/day}]}"
    )
    async with town(tmp_path / "data", quotas) as one:
        said = {
            sub: [(await one.call(one.issuer.token(sub=sub))).status_code for _ in range(3)]
            for sub in ("ann", "eve", "bob")
        }
        assert said == {"ann": [200, 429, 429], "eve": [200, 429, 429], "bob": [200, 200, 429]}


async def test_wrong_ones_are_bounded_by_address(tmp_path: Path) -> None:
    """Like wrong platform tokens; a good one that is known goes on."""
    async with town(tmp_path / "data", "limits: {wrong_tokens: 3/minute}") as one:
        good = one.issuer.token()
        assert (await one.call(good)).status_code == 200
        wrong = [await one.call(one.issuer.token(aud="x", jti=str(n))) for n in range(5)]
        assert [answer.status_code for answer in wrong] == [401, 401, 401, 429, 429]
        assert (await one.call(good, "/v1/x")).status_code == 200


async def test_a_flood_of_wrong_ones_is_not_even_read(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To read one costs more than all else of its refusal; who was good before is still heard."""
    desk.open(wrongs=Guesses(parse_rate("1/minute"), desk.clock))
    good, read = desk.jwt(), []
    knows = desk.sign_in.knows
    monkeypatch.setattr(desk.sign_in, "knows", lambda text: read.append(text) or knows(text))
    await desk(("x-relay-token", good))
    broken = f"e{'A' * 8000}.e{'A' * 8000}.A"
    with pytest.raises(Unauthorized):
        await desk(("authorization", broken))
    before = len(read)
    for name in ("authorization", "x-relay-token", "x-api-key"):
        for text in (broken, desk.jwt(sub="new")):
            with pytest.raises(TooManyGuesses):
                await desk((name, text), ("x-goog-api-key", broken))
    with pytest.raises(TooManyGuesses):
        await desk.door.holder(((b"authorization", broken.encode()),), PEER)
    assert len(read) == before
    assert (await desk(("x-relay-token", good))).name == "login/ann"
    both = await desk(("proxy-authorization", broken), ("x-relay-token", good))
    assert both.name == "login/ann"


async def test_what_was_granted_is_judged_again_when_anything_changes(tmp_path: Path) -> None:
    """The issuer is down: its keys go on. It takes one back: that is over. It is taken out of the
    configuration: it is nobody, without a restart."""
    async with town(tmp_path / "data") as one:
        text = one.issuer.token(exp=NOW + 10**6)
        assert (await one.call(text)).status_code == 200
        one.issuer.down = True
        one.clock.advance(FRESH_SECONDS)
        assert (await one.call(one.issuer.token(sub="bob", exp=NOW + 10**6))).status_code == 200
        one.issuer.down, one.issuer.signers = False, [Signer(kid="two", which="b")]
        one.clock.advance(FRESH_SECONDS)
        other = one.issuer.token(exp=NOW + 10**6)
        assert (await one.call(other)).status_code == 200
        assert (await one.call(text)).status_code == 401
        assert "sign_in" in one.up.relay.live
        parts = one.up.relay._parts.lasting
        [sign_in] = [part for part in parts if isinstance(part, SignIn)]
        sign_in.become([])
        assert (await one.call(other)).status_code == 401


# The settings.


def settings(tmp_path: Path, **other: Any) -> Config:
    path = tmp_path / "keys.yaml"
    usual = {"name": "login", "issuer": ISSUER, "audience": "keyrelay"}
    said = {k: v for k, v in {**usual, **other}.items() if v is not None}
    path.write_text(yaml.safe_dump({"sign_in": [said]}))
    return load_config(path, {})


def test_the_settings_have_good_defaults(tmp_path: Path) -> None:
    """Signed in the two usual ways; everything of the tenant default."""
    [one] = settings(tmp_path).sign_in
    assert (one.algorithms, one.audience) == (("RS256", "ES256"), ("keyrelay",))
    assert (one.tenant, one.leeway, one.max_age, one.jwks) == ("default", 30, None, None)
    [one] = settings(
        tmp_path, methods=["get"], services=["openai"], issuer="any", jwks=ISSUER
    ).sign_in
    assert one.narrowing.methods == ("GET",)
    for place in ("http://localhost:9/k", "http://10.0.0.7/k", "http://[::1]/k"):
        assert settings(tmp_path, jwks=place).sign_in[0].jwks == place


MISTAKES: list[tuple[dict[str, Any], str]] = [
    ({"name": "Login"}, "1 to 64 of a-z"),
    ({"issuer": None}, "expected, but missing"),
    ({"issuer": "a b"}, "printable characters"),
    ({"issuer": "not a url"}, "printable characters"),
    ({"issuer": "urn:x"}, "expected jwks:"),
    ({"issuer": ISSUER + "?a=b"}, "URL with a query"),
    ({"issuer": "http://login.example.com"}, "expected https://"),
    ({"audience": None}, "expected, but missing"),
    ({"audience": []}, "one at least"),
    ({"algorithms": []}, "one at least"),
    ({"algorithms": ["HS256"]}, "expected 'RS256'"),
    ({"algorithms": ["none"]}, "expected 'RS256'"),
    ({"jwks": "http://login.example.com/k"}, "expected https://"),
    ({"jwks": "http://8.8.8.8/k"}, "expected https://"),
    ({"jwks": "https://169.254.169.254/k"}, "nothing is ever sent"),
    ({"jwks": "ftp://x/k"}, "https://"),
    ({"tenant_claim": "org"}, "together"),
    ({"tenants": {"a": "b"}}, "together"),
    ({"tenant": "a", "tenant_claim": "o", "tenants": {"a": "b"}}, "either tenant:"),
    ({"tenant_claim": "o", "tenants": {"a": "B"}}, "1 to 64 of a-z"),
    ({"services": ["nosuch"]}, "name of a service"),
    ({"hosts": ["https://x"]}, "expected a host"),
    ({"methods": ["TRACE"]}, "expected a method"),
    ({"origins": ["*"]}, "exact origins"),
    ({"paths": ["v1"]}, "expected a path"),
    ({"leeway": "1h"}, "expected 5m at most"),
    ({"claims": {"a": 1}}, "expected true, false or text"),
    ({"max_age": 0}, "expected"),
    ({"secret": "x"}, "no setting has this name; expected one of name, issuer, audience"),
]


def test_every_mistake_is_said(tmp_path: Path) -> None:
    """In a sentence that begins with its place, all of them at once."""
    usual = {"name": "login", "issuer": ISSUER, "audience": "keyrelay"}
    entries = [
        {name: said for name, said in {**usual, **other}.items() if said is not None}
        for other, _ in MISTAKES
    ]
    path = tmp_path / "keys.yaml"
    path.write_text(yaml.safe_dump({"sign_in": entries}))
    with pytest.raises(ConfigError) as refused:
        load_config(path, {})
    for number, (other, expected) in enumerate(MISTAKES):
        said = [line for line in refused.value.mistakes if f"sign_in[{number}]" in line]
        assert len(said) == 1, (other, said)
        assert expected in said[0]


def test_each_issuer_has_one_entry(tmp_path: Path) -> None:
    """By its name and by its iss."""
    path = tmp_path / "keys.yaml"
    one = {"name": "login", "issuer": ISSUER, "audience": "keyrelay"}
    for other in ({"name": "other"}, {"issuer": "https://other.example.com"}):
        path.write_text(yaml.safe_dump({"sign_in": [one, {**one, **other}]}))
        with pytest.raises(ConfigError, match="expected one entry with the"):
            load_config(path, {})
