"""A secret is found in every form in which it may lie around."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import conftest
from tests.proxy.workers.conftest import Office, office, until
from tests.support.caller import Answered
from tests.support.canaries import LEDGER, TAIL, Ledger, Pages, holds
from tests.support.process import learn, unlike
from tests.support.sieve import LONG_ENOUGH, Sieve, forms, pieces
from vault import Secret
from vault.tokens import mint

KEY = "sk-CANARY/0123456789+abcdefghijklmnop=\u00e9\"'"
OTHER = "sk-CANARY-of-another-9876543210"

__all__ = ["office"]


@pytest.mark.parametrize(
    "form",
    [
        KEY,
        KEY.encode().hex(),
        KEY.encode().hex().upper(),
        quote(KEY, safe=""),
        quote_plus(KEY),
        json.dumps(KEY),
        json.dumps(KEY).replace("/", "\\/"),
        KEY[len(KEY) // 2 :],
        *(base64.b64encode(b"x" * count + KEY.encode() + b"yz").decode() for count in range(6)),
        *(base64.urlsafe_b64encode(b"?" * n + KEY.encode()).decode() for n in range(3)),
    ],
)
def test_every_form_is_found(form: str) -> None:
    """Plain, hex, URL-encoded, JSON-escaped, as base64 at all alignments; the half of it."""
    assert holds(f"before {form} behind".encode(), KEY) == [KEY]
    assert holds(b"before behind", KEY) == []


@given(
    st.lists(st.text(st.characters(codec="utf-8"), min_size=LONG_ENOUGH, max_size=60), max_size=4),
    st.binary(max_size=40),
    st.data(),
)
def test_no_form_falls_through_the_sieve(secrets: list[str], noise: bytes, data: Any) -> None:
    """Whatever a secret is made of and whatever stands around it, it is found as by looking for
    each form in turn; nothing else is."""
    known = {secret: [form for one in pieces(secret) for form in forms(one)] for secret in secrets}
    every = [form for several in known.values() for form in several]
    octets = noise + (data.draw(st.sampled_from(every)) if every else b"") + noise
    sieve = Sieve()
    sieve.learn(secrets)
    standing = {one for one in known if any(form in octets for form in known[one])}
    assert sieve.found(octets) == standing


def test_every_secret_of_this_process_is_known() -> None:
    """Keys as they become a Secret, tokens as they are made."""
    Secret(KEY.encode())
    assert KEY in LEDGER.keys
    assert mint().text in LEDGER.tokens


def test_files_of_a_test_are_its_own_and_all_others_are_looked_at(tmp_path: Path) -> None:
    """What a test writes it may; a database is never a test's own."""
    (tmp_path / "input.yaml").write_text(KEY)
    assert str(tmp_path / "input.yaml") in LEDGER.own_files
    (tmp_path / "some.db").write_text("")
    assert str(tmp_path / "some.db") not in LEDGER.own_files
    ledger = Ledger()
    ledger.key(KEY.encode())
    ledger.look_at_files(tmp_path)
    assert [leak.partition(" holds ")[0] for leak in ledger.leaks] == ["input.yaml"]


def test_what_a_configuration_reads_elsewhere_is_known(tmp_path: Path) -> None:
    """Of the environment and of files; the password of a URL; not what it does not name."""
    (tmp_path / "keys.yaml").write_text(
        "keys: {openai: '${MINE}', twilio: {key: file:theirs}}\nvault: {url: '${DB}'}\n"
    )
    (tmp_path / "theirs").write_text("sk-of-a-file-0123456789\n")
    url = "postgresql://me:of-the-database-0123@127.0.0.1/d"
    given = {"MINE": KEY, "DB": url, "OTHER": "no-secret-at-all-0123"}
    names = learn(tmp_path, given)
    assert LEDGER.keys >= {KEY, "sk-of-a-file-0123456789", "of-the-database-0123"}
    assert not LEDGER.keys & {url, given["OTHER"]}
    environ = "\0".join(f"{name}={text}" for name, text in {**given, "LEFT": KEY}.items()).encode()
    assert holds(unlike(environ, names), KEY, url) == [KEY]
    assert holds(unlike(environ, {*names, "LEFT"}), KEY, url) == []


def leaks_found() -> list[str]:
    """Taken away, so that this test doesn't fail of them."""
    found, LEDGER.leaks = LEDGER.leaks, []
    return found


@pytest.mark.parametrize(
    ("target", "kind", "leaks"),
    [
        ("/proxy/x", "application/problem+json", 1),
        ("/metrics", "text/plain", 1),
        ("/admin/api/v1/audit", "application/json", 1),
        ("/admin/keys", "text/html; charset=utf-8", 1),
        ("/admin/login", "text/html", 1),
        ("/", "text/html", 1),
        ("/proxy/x", "application/json", 0),
        ("http://relay.test/proxy?server=x", "text/html", 0),
    ],
)
def test_answers_of_our_own_are_looked_at(target: str, kind: str, leaks: int) -> None:
    """Refusals and pages; what an upstream says is the caller's."""
    Secret(KEY.encode())
    for fields, body in (([], KEY.encode()), ([("X-Key", quote(KEY))], b"")):
        Answered(200, [("Content-Type", kind), *fields], body).looked_at(target)
        assert len(leaks_found()) == leaks


def test_a_refusal_of_a_call_is_our_own() -> None:
    """Whatever form it has: by its Proxy-Status."""
    Secret(KEY.encode())
    fields = [("Content-Type", "text/html"), ("Proxy-Status", "keyrelay; error=x")]
    Answered(502, fields, KEY.encode()).looked_at("/proxy/x")
    assert len(leaks_found()) == 1


def test_an_answer_may_show_what_it_makes_once() -> None:
    """A new token is no secret yet when it is asked for; the next page does not show it."""
    text = "kr_0123456789ab_" + "D" * 38
    page = Answered(200, [("Content-Type", "text/html")], f"<code>{text}</code>".encode())
    page.looked_at("/admin/tokens", LEDGER.secrets)
    assert leaks_found() == []
    page.looked_at("/admin/tokens", LEDGER.secrets)
    assert len(leaks_found()) == 1


def answering(kind: bytes, *parts: bytes, makes: str = "") -> Pages:
    """A page of ours that says that; and makes a key meanwhile."""

    async def app(_scope: object, _receive: object, send: Any) -> None:
        if makes:
            Secret(makes.encode())
        await send({"type": "http.response.start", "headers": [(b"content-type", kind)]})
        for part in parts:
            await send({"type": "http.response.body", "body": part, "more_body": True})

    return Pages(app)


async def visited(page: Pages) -> list[str]:
    """The leaks of one visit, by whatever client: what it was told does not matter."""

    async def told(_message: object) -> None: ...

    await page({"method": "GET", "path": "/admin/keys"}, None, told)
    return leaks_found()


async def test_pages_of_this_process_are_looked_at_whoever_asks() -> None:
    """A browser's too, also where a secret comes in two parts, and in a stream that never ends."""
    Secret(KEY.encode())
    shown = json.dumps(KEY).encode()
    assert len(await visited(answering(b"text/html", b"<p>", shown))) == 1
    assert await visited(answering(b"text/html", b"<p>", b"nothing")) == []
    assert len(await visited(answering(b"text/html", b" " * TAIL + shown[:20], shown[20:]))) == 1
    assert len(await visited(answering(b"text/event-stream", b"data: " + shown))) == 1


async def test_a_page_may_show_what_is_made_for_it_and_a_stream_may_not() -> None:
    """A page is asked for once; what a stream tells comes later, and so do keys."""
    assert await visited(answering(b"text/html", OTHER.encode(), makes=OTHER)) == []
    told = "sk-CANARY-of-a-stream-9876543210"
    assert len(await visited(answering(b"text/event-stream", told.encode(), makes=told))) == 1


def planted(form: str) -> str:
    """A secret of this test as it may stand somewhere."""
    Secret(OTHER.encode())
    octets = OTHER.encode()
    return {
        "plain": OTHER,
        "hex": octets.hex(),
        "base64": base64.b64encode(octets).decode(),
        "url": quote(f"{OTHER}", safe=""),
        "json": json.dumps(OTHER),
    }[form]


FORMS: Sequence[str] = ("plain", "hex", "base64", "url", "json")


@pytest.mark.parametrize("form", FORMS)
async def test_what_workers_tell_their_coordinator_is_looked_at(office: Office, form: str) -> None:
    """And what it tells them."""
    heard: list[object] = []
    one, other = office.worker(), office.worker()
    other.on("guess", heard.append)
    await one.start()
    await other.start()
    one.tell("pass", "guess", planted(form))
    await until(lambda: bool(heard))
    conftest.look_at_what_is_shared([])
    found = leaks_found()
    assert len(found) == 1
    assert found[0].startswith("the coordinator's socket holds sk-CAN")
    conftest.look_at_what_is_shared([])
    assert leaks_found() == []


def test_a_token_that_an_answer_makes_is_known() -> None:
    """One of minutes too, which is longer."""
    text = "kr_0123456789ab_" + "C" * 90
    Answered(201, [], b'{"token": "' + text.encode() + b'"}').looked_at("/tokens")
    assert text in LEDGER.tokens
