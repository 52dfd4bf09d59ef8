"""`keyrelay explain`: what would happen to a call, without a value, without sending anything."""

from __future__ import annotations

import pytest

from tests.proxy.cli.conftest import CANARY, OTHER, Terminal

MODELS = "https://api.openai.com/v1/models"


@pytest.fixture
def team(relay: Terminal) -> Terminal:
    """A key, a backend, and a service of one's own."""
    relay.run("key", "add", "openai", stdin=CANARY)
    relay.run("key", "add", "opencage", stdin=OTHER)
    relay.run("backend", "add", "http://127.0.0.1:9000/v1", "--service", "opencage")
    return relay


def explained(relay: Terminal, url: str, *words: str, stdin: str = "") -> dict[str, object]:
    document: dict[str, object] = relay.run("explain", url, *words, "--json", stdin=stdin).json
    return document


def test_a_call_to_the_provider(team: Terminal) -> None:
    """Which rule, which key, which header name, what the cache would do."""
    said = explained(team, f"/proxy?server={MODELS}&service=openai&cache=9999999999")
    assert said["verdict"] == "would be forwarded"
    assert (said["service"], said["place"]) == ("openai", "provider")
    assert said["rule"] == "https://api.openai.com/"
    assert (said["key"], said["key_goes_in"]) == ("openai/default", ["header Authorization"])
    assert said["looked_up_in_the_cache"] is True
    assert said["kept_until"] != "not kept"
    assert said["cache_key"] == ["tenant", "service", "key alias", "method", "target", "body"]


@pytest.mark.parametrize(
    "url",
    [
        MODELS,
        f"/proxy?server={MODELS}",
        f"http://127.0.0.1:8000/proxy?server={MODELS}",
        "/proxy/openai/v1/models",
        "https://relay.example.com/proxy/https/api.openai.com/v1/models",
    ],
)
def test_every_form_of_a_call_and_a_bare_destination(team: Terminal, url: str) -> None:
    """They mean the same."""
    said = explained(team, url)
    assert (said["destination"], said["service"]) == (MODELS, "openai")
    assert said["kept_until"] == "not kept"


def test_a_key_goes_to_a_backend_in_another_way(team: Terminal) -> None:
    """Direct as a parameter, to the backend as a header."""
    direct = explained(team, "https://api.opencagedata.com/geocode/v1/json?q=Rome")
    assert (direct["key_goes_in"], direct["parameters"]) == (["parameter key"], ["q"])
    backend = explained(team, "http://127.0.0.1:9000/v1/geo")
    assert (backend["place"], backend["rule"]) == ("backend", "http://127.0.0.1:9000/v1")
    assert backend["key_goes_in"] == ["header Authorization"]


def test_no_value_is_shown(team: Terminal) -> None:
    """Parameters by name: a value may be a secret."""
    said = team.run("explain", f"{MODELS}?api_token=very-secret", "--json")
    assert "api_token" in said.out
    assert "very-secret" not in said.out


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("https://evil.example/", "destination_refused"),
        ("https://api.openai.com.evil.example/?service=openai", "destination_refused"),
        ("/proxy?server=https://api.openai.com/../x", "bad_destination"),
        ("/proxy", "bad_call"),
        ("/proxy?server=https://api.groq.com/&service=groq", "key_missing"),
        ("/proxy?server=https://api.groq.com/&service=nosuch", "unknown_service"),
    ],
)
def test_a_refusal_is_explained(team: Terminal, url: str, code: str) -> None:
    """With the sentence that the caller would get; explaining it is no failure."""
    said = explained(team, url)
    assert str(said["verdict"]).startswith("refused with status 40")
    assert said["code"] == code


def test_a_tenant_has_its_own_keys(team: Terminal) -> None:
    """`--tenant` asks for another one's view, whatever stands on standard input."""
    said = explained(team, f"/proxy?server={MODELS}&service=openai", "--tenant", "other")
    assert said["code"] == "key_missing"


def test_a_token_on_standard_input_is_the_caller(team: Terminal) -> None:
    """With its own limits."""
    text = team.run("token", "issue", "bob", "--service", "opencage").out
    said = explained(team, MODELS, "--method", "POST", stdin=text)
    assert (said["caller"], said["tenant"], said["code"]) == ("bob", "default", "forbidden")
    assert text.strip() not in str(said)
    assert explained(team, MODELS, stdin="kr_nonsense\n")["code"] == "unauthorized"


def test_telegrams_key_is_a_segment_of_the_path(team: Terminal) -> None:
    """Every carrier has words; a keyless service has none to say."""
    team.run("key", "add", "telegram", stdin="123456:ABCDEFGHIJKLMNOP")
    said = explained(team, "https://api.telegram.org/getMe")
    assert said["key_goes_in"] == ["a segment of the path"]
    team.write("data/keys.yaml", "services: {open: {hosts: [open.example.com], in: none}}")
    said = explained(team, "https://open.example.com/x")
    assert (said["key"], said["key_goes_in"]) == (None, [])


def test_nothing_is_sent_or_kept(team: Terminal) -> None:
    """A name that does not resolve is explained all the same."""
    team.write("data/keys.yaml", "services: {gone: {hosts: [gone.invalid.example], in: none}}")
    before = (team.data / "cache.db").read_bytes()
    assert explained(team, "https://gone.invalid.example/")["verdict"] == "would be forwarded"
    assert (team.data / "cache.db").read_bytes() == before


@pytest.mark.parametrize("url", ["/proxy/openai/\udcff", "https://api.openai.com/\udcff"])
def test_octets_that_are_no_text_are_judged_like_any_other(team: Terminal, url: str) -> None:
    """A command line may hold any octets."""
    assert "verdict" in team.run("explain", url).out


def test_people_read_lines(team: Terminal) -> None:
    """Without --json, one line for each fact."""
    assert "key goes in" in team.run("explain", MODELS).out


def test_keyrelay_itself_is_no_destination(team: Terminal) -> None:
    """Under its public URL as little as under its own address."""
    team.write("data/keys.yaml", "server: {public_url: 'https://api.openai.com'}")
    assert explained(team, MODELS)["code"] == "destination_refused"
