"""A secret is found in every form in which it may lie around."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest

from tests.support.caller import Answered
from tests.support.canaries import LEDGER, Ledger, holds
from tests.support.process import learn, unlike
from vault import Secret
from vault.tokens import mint

KEY = "sk-CANARY/0123456789+abcdefghijklmnop=\u00e9\"'"


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


@pytest.mark.parametrize(
    ("target", "kind", "leaks"),
    [
        ("/proxy/x", "application/problem+json", 1),
        ("/metrics", "text/plain", 1),
        ("/admin/api/v1/audit", "application/json", 1),
        ("/proxy/x", "application/json", 0),
    ],
)
def test_answers_of_our_own_are_looked_at(target: str, kind: str, leaks: int) -> None:
    """Refusals and pages; what an upstream says is the caller's."""
    Secret(KEY.encode())
    for fields, body in (([], KEY.encode()), ([("X-Key", quote(KEY))], b"")):
        Answered(200, [("Content-Type", kind), *fields], body).looked_at(target)
        found, LEDGER.leaks = LEDGER.leaks, []
        assert len(found) == leaks


def test_a_token_that_an_answer_makes_is_known() -> None:
    """One of minutes too, which is longer."""
    text = "kr_0123456789ab_" + "C" * 90
    Answered(201, [], b'{"token": "' + text.encode() + b'"}').looked_at("/tokens")
    assert text in LEDGER.tokens
