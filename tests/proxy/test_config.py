"""The configuration: what a file may say, what it becomes, and every mistake in one line each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from proxy.cache.policy import CacheSettings
from proxy.config import (
    BackendEntry,
    Cache,
    CallLimits,
    Config,
    ConfigError,
    KeyEntry,
    Limits,
    Server,
    VaultPlace,
    declared_backends,
    declared_keys,
    load_config,
    load_vault_place,
    make_key,
    parse_seconds,
    read_document,
    read_imported_services,
    services_of,
    write_imported_services,
)
from proxy.config.model import Concurrency
from proxy.config.units import parse_octets
from proxy.config.usage import PriceEntry
from proxy.config.usage import Usage as UsageSection
from proxy.services import ServiceEntry, load_services
from proxy.services.schema import CarrierEntry, PartEntry
from proxy.usage import UsageSettings
from vault import Backend, Binding, Secret

EXAMPLE = Path(__file__).parents[2] / "keys.example.yaml"
CANARY = "sk-canary-0123456789abcdef"


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def write(text: str) -> Path:
        path = tmp_path / "keys.yaml"
        path.write_text(text)
        return path

    return write


def mistakes(path: Path, environ: Mapping[str, str] | None = None, **options: Any) -> list[str]:
    """The mistakes of a file, without its name; none of them holds the canary."""
    with pytest.raises(ConfigError) as caught:
        load_config(path, environ or {}, **options)
    assert CANARY not in str(caught.value)
    assert all(line.startswith(f"{path}: ") for line in caught.value.mistakes)
    return [line.removeprefix(f"{path}: ") for line in caught.value.mistakes]


def test_without_a_file_everything_has_its_default() -> None:
    """There is nothing that must be configured."""
    config = load_config(None, {})
    assert config == Config()
    assert (config.server.host, config.server.port) == ("127.0.0.1", 8000)


@pytest.mark.parametrize("text", ["", "# only a comment\n", "server:\nkeys:\nbackends:\n"])
def test_an_empty_file_and_empty_sections_are_the_defaults(write: Any, text: str) -> None:
    """A section whose every line is commented out is not a mistake."""
    assert load_config(write(text), {}) == Config()


def test_settings_are_typed_and_frozen(write: Any) -> None:
    """Durations come out in seconds, sizes in octets, and nothing changes afterwards."""
    config = load_config(
        write(
            """
            server: {port: 9000, public_url: "https://Relay.Example.com/base/"}
            cache: {max_ttl: 12h, memory_bytes: 8MiB, disk_bytes: 1500, ignore_fields: [x-trace-*]}
            limits: {connect_timeout: 2.5}
            """
        ),
        {},
    )
    assert config.server.public_url == "https://relay.example.com/base"
    assert (config.cache.max_ttl, config.cache.memory_bytes) == (43200.0, 8 * 2**20)
    assert (config.cache.disk_bytes, config.cache.ignore_fields) == (1500, ("x-trace-*",))
    assert config.limits.connect_timeout == 2.5
    with pytest.raises(ValidationError):
        config.server.port = 1  # type: ignore[misc]


def test_the_grace_of_handed_out_keys_is_a_day_at_most(write: Any) -> None:
    """The vault forgets what it would be recognised by."""
    assert (
        load_config(write("server: {handed_out_grace: 24h}"), {}).server.handed_out_grace == 86_400
    )
    assert load_config(write("server: {handed_out_grace: 0}"), {}).server.handed_out_grace == 0
    with pytest.raises(ConfigError, match="24h at most"):
        load_config(write("server: {handed_out_grace: 25h}"), {})


def test_the_cache_takes_its_section_as_it_is() -> None:
    """The names and defaults of the section are those of the cache's own settings."""
    assert CacheSettings(**Cache().model_dump()) == CacheSettings()


def test_a_service_has_the_bounds_of_all_but_for_its_own(write: Any) -> None:
    """What an entry leaves out is as for all; null takes a bound away."""
    limits = load_config(
        write(
            """
            limits:
              connect_timeout: 3
              total_timeout: 1m
              max_request_bytes: 1MiB
              services:
                gemini: {first_byte_timeout: 20m, total_timeout: null}
              concurrency: {total: null, tenants: {team: 3}, services: {gemini: 2}}
            """
        ),
        {},
    ).limits
    assert limits.by_service() == {
        "google-gemini": CallLimits(
            connect_timeout=3.0, first_byte_timeout=1200.0, max_request_bytes=2**20
        )
    }
    assert limits.concurrency.total is None
    assert (limits.concurrency.tenants, limits.concurrency.services) == (
        {"team": 3},
        {"google-gemini": 2},
    )


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("total_timeout: 0", "limits.total_timeout: expected greater than 0"),
        ("connect_timeout: null", "limits.connect_timeout: expected a duration"),
        ("queue_length: -1", "limits.queue_length: expected greater than or equal to 0"),
        (
            "services: {opanai: {}}",
            "limits.services.opanai: expected the name of a service (keyrelay service list), "
            "did you mean openai",
        ),
        (
            "services: {openai: {nonsense: 1}}",
            "limits.services.openai.nonsense: no setting has this name; expected one of "
            "connect_timeout, first_byte_timeout,",
        ),
        (
            "services: {openai: {connect_timeout: null}}",
            "limits.services.openai.connect_timeout: expected a duration",
        ),
        (
            "services: {gemini: {}, google-gemini: {}}",
            "limits.services: expected each service once, found one again by an alias",
        ),
        (
            "concurrency: {nonsense: 1}",
            "limits.concurrency.nonsense: no setting has this name; expected one of total,",
        ),
        ("concurrency: {total: 0}", "limits.concurrency.total: expected greater than 0"),
        ("concurrency: {tenants: {T: 1}}", "limits.concurrency.tenants.T: expected 1 to 64 of"),
    ],
)
def test_a_limit_that_makes_no_sense_is_a_mistake(write: Any, text: str, line: str) -> None:
    """Each with its place in the file."""
    [found] = mistakes(write(f"limits: {{{text}}}"))
    assert found.startswith(line)


def test_usage_takes_its_section_as_it_is() -> None:
    """The names and defaults of the section are those of the settings of usage, but the switch."""
    kept = UsageSection().model_dump()
    assert kept.pop("enabled") is True
    assert UsageSettings(**kept) == UsageSettings()


def test_prices_are_numbers_by_model(write: Any) -> None:
    """For a million tokens each; what is left out costs nothing, cached input as much as any."""
    config = load_config(write("prices: {'gpt-4o*': {input: 2.5, output: 10}, 4: {input: 1}}"), {})
    found = {name: price.model_dump() for name, price in config.prices.items()}
    assert found == {
        "gpt-4o*": {"input": 2.5, "output": 10.0, "cached": None},
        "4": {"input": 1.0, "output": 0.0, "cached": None},
    }


@pytest.mark.parametrize(
    ("text", "place"),
    [
        (
            "prices: {a: {input: cheap}}",
            "prices.a.input: expected a number, the price of a million",
        ),
        ("prices: {a: {input: -1}}", "prices.a.input: expected"),
        ("prices: {a: {input: true}}", "prices.a.input: expected a number"),
        ("prices: {a: {input: .inf}}", "prices.a.input: expected"),
        ("prices: {a: {in: 1}}", "prices.a.in: no setting has this name; expected one of input,"),
        ("prices: {a: 5}", "prices.a: expected a mapping of settings"),
        ("prices: {'a b': {input: 1}}", "prices: expected names of models"),
        ("prices: [a]", "prices: expected a mapping"),
        ("usage: {keep: 0}", "usage.keep: expected"),
        ("usage: {max_calls: 0}", "usage.max_calls: expected"),
        ("usage: {enabled: 1}", "usage.enabled: expected true or false"),
        ("usage: {keep_months: 1}", "usage.keep_months: no setting has this name"),
    ],
)
def test_a_mistake_in_usage_or_prices_is_said(write: Any, text: str, place: str) -> None:
    """With its path in the file."""
    [mistake] = mistakes(write(text))
    assert mistake.startswith(place)


def test_every_mistake_is_said_at_once(write: Any) -> None:
    """One line each: file, path in it, what was expected."""
    path = write(
        """
        server: {port: 99999, cors_origins: ["*", "https://app.example.com/"], nonsense: 1}
        cache: {max_ttl: soon, json_whitespace: fold, ignore_fields: ["X Y"]}
        limits: {idle_timeout: 0}
        keys:
          - {service: nosuch, value: "${A}"}
          - {service: openai, value: "${UNSET}"}
          - {service: openai, alias: "Bad Name", value: "${A}"}
        backends:
          - {service: openai, url: "http://10.0.0.1/?x=1"}
          - {url: "http://10.0.0.1/"}
          - {service: openai, url: "http://169.254.169.254/"}
        services: {mine: {hosts: [UPPER.example.com]}}
        extra: 1
        """
    )
    found = mistakes(path, {"A": "a"})
    starts = {line.partition(": ")[0] for line in found}
    assert starts == {
        "server.port",
        "server.cors_origins[0]",
        "server.cors_origins[1]",
        "server.nonsense",
        "cache.max_ttl",
        "cache.json_whitespace",
        "cache.ignore_fields[0]",
        "limits.idle_timeout",
        "keys[1].value",
        "keys[2].alias",
        "backends[0].url",
        "backends[1].service",
        "backends[2].url",
        "services.mine.hosts[0]",
        "extra",
    }
    by_place = dict(line.split(": ", 1) for line in found)
    assert (
        "expected one of services, backends, keys, server, vault, cache, limits"
        in by_place["extra"]
    )
    assert "nothing is ever sent to this address (link-local)" in by_place["backends[2].url"]
    assert "metrics_listen, admin_listen" in by_place["server.nonsense"]
    assert by_place["keys[1].value"] == "expected the environment variable UNSET to be set"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("keys: 5", "keys: expected a list"),
        ("backends: {a: 1}", "backends: expected a list"),
        ("backends: [5]", "backends[0]: expected a mapping of settings"),
        ("server: 5", "server: expected a mapping of settings"),
        ("server: {host: 5}", "server.host: expected text"),
        ("server: {host: 'a b'}", "server.host: expected an address or a host name to listen on"),
        ("server: {port: '80'}", "server.port: expected a whole number"),
        ("server: {accept_handed_out: 1}", "server.accept_handed_out: expected true or false"),
        ("server: {upstream_ca: 5}", "server.upstream_ca: expected a path"),
        ("cache: {ignore_fields: a}", "cache.ignore_fields: expected a list"),
        ("server: {tls_cert: keys.yaml}", "server: expected tls_cert: and tls_key: together"),
        ("server: {max_connections: 0}", "server.max_connections: expected greater than 0"),
        ("server: {trusted_proxies: 10.0.0.1}", "server.trusted_proxies: expected a list"),
        *(
            (
                f"server: {{trusted_proxies: [10.0.0.1, {text}]}}",
                "server.trusted_proxies[1]: expected an address or a network, such as 192.0.2.7 "
                "or 10.0.0.0/8",
            )
            for text in ("proxy.example", "5", "10.0.0.1/8", "10.0.0.0/33")
        ),
        (
            "server: {trusted_proxies: ['::/0']}",
            "server.trusted_proxies[0]: expected a network of your own: everybody could say who "
            "they are",
        ),
        *(
            (
                f"server: {{hosts: [relay.example.com, '{text}']}}",
                "server.hosts[1]: expected a name, such as relay.example.com or *.example.com",
            )
            for text in ("", "a b", "*", "a.*", "*a.b", "https://a.example", "a:80", "[::1]", "a.")
        ),
        (
            "backends: [{service: openai, url: 'https://u:p@a.example/'}]",
            "backends[0].url: the destination must not hold a user name or password before its "
            "host",
        ),
    ],
)
def test_a_wrong_kind_of_value_is_told_in_plain_words(write: Any, text: str, line: str) -> None:
    """The words of YAML, not those of a library."""
    assert mistakes(write(text)) == [line]


def test_a_certificate_authority_is_a_file_beside_the_configuration(
    write: Any, tmp_path: Path
) -> None:
    """A relative path starts at the file that it stands in."""
    path = write("server: {upstream_ca: private/ca.pem}")
    [line] = mistakes(path)
    assert line.startswith("server.upstream_ca: expected a file, found none at ")
    (tmp_path / "private").mkdir()
    (tmp_path / "private" / "ca.pem").touch()
    assert load_config(path, {}).server.upstream_ca == tmp_path / "private" / "ca.pem"


def test_an_unknown_service_is_a_mistake_with_a_near_name(write: Any) -> None:
    """`opanai` is most likely `openai`."""
    assert mistakes(write("keys: {opanai: '${A}'}"), {"A": "a"}) == [
        "keys.opanai: expected the name of a service (keyrelay service list), did you mean openai"
    ]


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("server: {port: 1, port: 2}", "server.port"),
        ("server: {port: 1}\nserver: {port: 2}", "server"),
        ("keys:\n- {service: openai, value: a, value: b}", "keys[0].value"),
    ],
)
def test_a_name_written_twice_is_a_mistake(write: Any, text: str, place: str) -> None:
    """YAML's last one wins would hide one of two settings."""
    assert mistakes(write(text)) == [f"{place}: expected once, written twice"]


def test_what_is_no_yaml_is_a_mistake_with_its_line(write: Any) -> None:
    """The remedy names the usual cause: an unquoted reference inside braces."""
    [line] = mistakes(write("keys:\n  - {service: openai, value: ${A}}\n"))
    assert line.startswith("line 2, column ")
    assert "needs quotes" in line


@pytest.mark.parametrize(
    "text",
    [
        *("[1, 2]", "!!python/object:os.system {}", "? [a]\n: b", "a: &a [*a]", "key: \x01"),
        *("a: !!bool x", "a: !!timestamp x", "a: !!int x", "a: !!binary é"),
    ],
)
def test_strange_yaml_is_refused_without_a_traceback(write: Any, text: str) -> None:
    """Only plain data is read, and only a mapping of sections."""
    assert mistakes(write(text))


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    """A missing file, a folder, and octets that are no text."""
    assert mistakes(tmp_path / "none.yaml") == ["can't be read: no such file or directory"]
    assert mistakes(tmp_path) == ["can't be read: is a directory"]
    (tmp_path / "latin.yaml").write_bytes(b"# \xe9\n")
    assert mistakes(tmp_path / "latin.yaml") == ["expected UTF-8 text"]
    (tmp_path / "huge.yaml").write_bytes(b"#" * (4 * 2**20 + 1))
    assert mistakes(tmp_path / "huge.yaml") == ["expected at most 4 MiB"]
    assert mistakes(Path("/dev/zero")) == ["expected at most 4 MiB"]


# Keys.


def test_keys_come_from_the_environment_and_from_files(write: Any, tmp_path: Path) -> None:
    """`${NAME}` and `file:PATH` (beside the file), resolved at load and shown nowhere."""
    (tmp_path / "anthropic").write_text(CANARY + "\n")
    config = load_config(
        write("keys: {openai: '${OPENAI}', anthropic: 'file:anthropic'}"), {"OPENAI": CANARY}
    )
    assert [key.credential for key in declared_keys(config)] == [
        {"key": Secret(CANARY.encode())},
        {"key": Secret(CANARY.encode())},
    ]
    assert CANARY not in repr(config)
    assert CANARY not in repr(declared_keys(config))


def test_a_plain_key_is_refused_but_in_an_import(write: Any) -> None:
    """A configuration is copied and committed; an import is done once."""
    path = write(f"keys:\n  openai: {CANARY}\n")
    [line] = mistakes(path)
    assert line.startswith("keys.openai: expected ${NAME} or file:PATH; keyrelay import")
    imported = load_config(path, {}, key_values="import")
    assert declared_keys(imported)[0].credential == {"key": Secret(CANARY.encode())}


@pytest.mark.parametrize(
    "value",
    [f"'Bearer ${{A}} {CANARY}'", "''", "'a b\tc'", "12345", "[a]", "'file:none'", "'${A-B}'"],
)
def test_an_import_refuses_what_cannot_be_a_key(write: Any, value: str) -> None:
    """Half references, nothing, control characters, numbers, and files that are not there."""
    path = write(f"keys: [{{service: openai, value: {value}}}]")
    [line] = mistakes(path, {"A": "a"}, key_values="import")
    assert line.startswith(("keys[0].value: expected", "keys[0]: the API key has"))


def test_keys_need_not_be_there_when_they_are_not_needed(write: Any) -> None:
    """An admin's shell lists keys without having the server's environment."""
    path = write("keys: {openai: '${UNSET}', anthropic: 'file:none'}")
    assert len(load_config(path, {}, key_values="leave").keys) == 2
    assert mistakes(write(f"keys: {{openai: {CANARY}}}"), key_values="leave")


def test_files_with_keys_are_one_line(write: Any, tmp_path: Path) -> None:
    """An empty one, and one that is far too long."""
    for octets in (b"", b"\n", b"k" * 65537):
        (tmp_path / "key").write_bytes(octets)
        [line] = mistakes(write("keys: {openai: 'file:key'}"))
        assert line.startswith("keys.openai: expected a file with one key")
    assert mistakes(write("keys: {openai: 'file:/dev/zero'}"))


@pytest.mark.parametrize("path", ["~nobody-of-this-name/x", "a\\0b", "\\ud800"])
def test_a_path_that_none_can_be_is_a_mistake(write: Any, path: str) -> None:
    """One line, not a traceback."""
    [line] = mistakes(write(f'keys: {{openai: "file:{path}"}}'))
    assert line.startswith("keys.openai: ")


def test_a_key_of_several_parts_names_them(write: Any) -> None:
    """Exactly the parts that the service has."""
    env = {"U": "user", "K": "key"}
    good = "keys: [{service: twilio, values: {account_sid: '${U}', key: '${K}'}}]"
    [key] = declared_keys(load_config(write(good), env))
    assert sorted(key.credential) == ["account_sid", "key"]
    assert key.recognised_by == "key"
    for wrong in ("{key: '${K}'}", "{key: '${K}', user: '${U}'}"):
        [line] = mistakes(write(f"keys: [{{service: twilio, values: {wrong}}}]"), env)
        assert line == "keys[0]: expected the parts of a twilio key: account_sid, key"


def test_a_key_has_either_value_or_values(write: Any) -> None:
    """Not both, not neither."""
    for entry in ("{service: openai}", "{service: openai, value: '${A}', values: {key: '${A}'}}"):
        [line] = mistakes(write(f"keys: [{entry}]"), {"A": "a"})
        assert line == "keys[0]: expected either value: or values: (by part)"


def test_hosts_fix_the_wildcards_of_a_service(write: Any) -> None:
    """One label below a `*.` name, exactly; needed where the service has nothing else."""
    env = {"U": "user", "K": "key"}

    def of(hosts: str) -> Path:
        entry = f"{{service: zendesk, values: {{email: '${{U}}', key: '${{K}}'}}, {hosts}}}"
        path: Path = write(f"keys: [{entry}]")
        return path

    [key] = declared_keys(load_config(of("hosts: [acme.zendesk.com]"), env))
    assert key.hosts == ("acme.zendesk.com",)
    for wrong in ("", "hosts: [evil.example]", "hosts: [a.b.zendesk.com]", "hosts: [zendesk.com]"):
        [line] = mistakes(of(wrong), env)
        assert line.startswith("keys[0]: expected")
    for wrong in ("hosts: ['acme.zendesk.com:444']", "hosts: ['*.zendesk.com']", "hosts: ['a b']"):
        [line] = mistakes(of(wrong), env)
        assert line == "keys[0]: expected a host such as acme.zendesk.com"
    [line] = mistakes(write("keys: [{service: openai, value: '${K}', hosts: [a.b]}]"), env)
    assert line == "keys[0]: openai has fixed hosts; leave hosts out"


def test_a_service_without_keys_takes_none(write: Any) -> None:
    """`in: none`."""
    [line] = mistakes(write("keys: {ollama: '${A}'}"), {"A": "a"})
    assert line == "keys.ollama: ollama needs no key"


def test_the_default_of_several_comes_first(write: Any) -> None:
    """The vault takes the first of a service for its default."""
    text = """
    keys:
      - {service: openai, value: "${A}"}
      - {service: openai, alias: work, default: true, value: "${A}"}
    """
    assert [key.alias for key in declared_keys(load_config(write(text), {"A": "a"}))] == [
        "work",
        "default",
    ]


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ("[{S, value: V}, {S, value: V}]", "expected one key for default/openai/default, found 2"),
        (
            "[{S, default: true, value: V}, {S, alias: b, default: true, value: V}]",
            "expected one default key for default/openai, found 2",
        ),
    ],
)
def test_two_keys_of_one_name_are_a_mistake(write: Any, entries: str, said: str) -> None:
    """So are two defaults of one service; a name may come again in another tenant."""
    text = entries.replace("S,", "service: openai,").replace("V", "'${A}'")
    assert mistakes(write(f"keys: {text}"), {"A": "a"}) == [f"keys: {said}"]


def test_an_alias_of_a_service_means_the_service(write: Any) -> None:
    """`gemini` and `google-gemini` are one service, so their keys are too."""
    config = load_config(write("keys: {gemini: '${A}'}"), {"A": "a"})
    assert declared_keys(config)[0].service == "google-gemini"


def test_make_key_says_what_is_wrong_without_the_value() -> None:
    """The rules of `key add`."""
    openai = load_services().get("openai")
    assert openai is not None
    with pytest.raises(ValueError, match="API key") as caught:
        make_key(openai, ("default", "default"), {"key": Secret(f" {CANARY}".encode())})
    assert CANARY not in str(caught.value)
    new = make_key(openai, ("t", "a"), {"key": Secret(CANARY.encode())})
    assert (new.tenant, new.service, new.alias) == ("t", "openai", "a")


# Backends and services.


def test_backends_become_bindings(write: Any) -> None:
    """Canonical, owned by the file, each once."""
    config = load_config(
        write("backends: [{service: openai, url: 'HTTP://Backend.Example:8080/v1', tenant: t}]"), {}
    )
    binding = Binding("http", "backend.example", 8080, "/v1")
    assert declared_backends(config) == [Backend("t", "openai", binding, declared=True)]
    twice = (
        "backends: [{service: openai, url: 'http://a/'}, {service: openai, url: 'HTTP://A:80/'}]"
    )
    place = "http://a/ for openai of tenant default"
    assert mistakes(write(twice)) == [
        f"backends: expected each backend once, found {place} 2 times"
    ]


def test_own_services_are_known_to_keys_and_backends(write: Any) -> None:
    """A service of the file is as good as a built-in one."""
    text = """
    services: {mine: {hosts: [api.mine.example.com], in: header, key_name: X-Key}}
    keys: {mine: "${A}"}
    backends: [{service: mine, url: "http://localhost:9/"}]
    """
    config = load_config(write(text), {"A": "a"})
    assert load_services(config.services).get("mine") is not None


@pytest.mark.parametrize("text", ["services: [a]", "services: {mine: }", "services: {1: {}}"])
def test_services_are_a_mapping_of_mappings(write: Any, text: str) -> None:
    """What is wrong with one entry does not hide the others' mistakes."""
    found = mistakes(write(text + "\nserver: {port: x}"))
    assert len(found) == 2
    assert found[0].startswith("services")


def test_imported_services_stand_below_the_files_own(write: Any, tmp_path: Path) -> None:
    """services.yaml holds what `import` registered; keys.yaml wins."""
    assert read_imported_services(tmp_path) == {}
    write_imported_services(tmp_path, {"a": {"hosts": ["a.example.com"]}})
    write_imported_services(
        tmp_path, {"a": {"hosts": ["a.example.com"]}, "b": {"hosts": ["b.example.com"]}}
    )
    assert (tmp_path / "services.yaml").stat().st_mode & 0o777 == 0o600
    path = write("services: {b: {hosts: [own.example.com]}}")
    config = load_config(path, {}, imported=read_imported_services(tmp_path))
    assert config.services["a"] == {"hosts": ["a.example.com"]}
    assert config.services["b"] == {"hosts": ["own.example.com"]}
    assert list(services_of(read_document(path))) == ["b"]
    assert load_config(None, {}, imported={"a": {"hosts": ["a.example.com"]}}).services


# Origins and URLs.


@pytest.mark.parametrize(
    "origin",
    [
        "https://app.example.com",
        "http://localhost:5173",
        "capacitor://localhost",
        "http://[::1]:3000",
    ],
)
def test_origins_are_taken_as_browsers_send_them(write: Any, origin: str) -> None:
    """RFC 6454 section 6.2: scheme, host and, unless it is the default, port."""
    config = load_config(write(f"server: {{cors_origins: ['{origin}']}}"), {})
    assert config.server.cors_origins == (origin,)


@pytest.mark.parametrize(
    "origin",
    [
        "*",
        "null",
        "app.example.com",
        "https://App.example.com",
        "https://a.example:443",
        "https://*.a",
    ],
)
def test_origins_that_no_browser_sends_are_mistakes(write: Any, origin: str) -> None:
    """They would silently never match; and `*` is never allowed."""
    [line] = mistakes(write(f"server: {{cors_origins: ['{origin}']}}"))
    assert line.startswith("server.cors_origins[0]: ")


@pytest.mark.parametrize("url", ["relay.example.com", "https://a@b/", "https://a/?x", "ftp://a/"])
def test_the_public_url_is_a_plain_url(write: Any, url: str) -> None:
    """Redirects are rewritten to it."""
    [line] = mistakes(write(f"server: {{public_url: '{url}'}}"))
    assert line.startswith("server.public_url: ")


# Units.


@pytest.mark.parametrize(
    ("text", "seconds"), [("30", 30), (2.5, 2.5), ("1.5h", 5400), ("10 m", 600), ("30d", 2592000)]
)
def test_durations(text: object, seconds: float) -> None:
    """Numbers, or numbers with a unit."""
    assert parse_seconds(text) == seconds


@pytest.mark.parametrize(("text", "octets"), [("64MiB", 64 * 2**20), ("1.5kB", 1500), (7, 7)])
def test_sizes(text: object, octets: int) -> None:
    """KiB, MiB, GiB by 1024; kB, MB, GB by 1000."""
    assert parse_octets(text) == octets


@given(st.one_of(st.text(), st.floats(), st.integers(), st.booleans(), st.none()))
def test_whatever_is_no_amount_is_a_value_error(value: object) -> None:
    """Never another error; never a negative or endless amount."""
    for parse in (parse_seconds, parse_octets):
        try:
            assert 0 <= parse(value) < float("inf")
        except ValueError as error:
            assert str(error).startswith("expected")


# The example.


def example_environ() -> dict[str, str]:
    names = ("OPENAI_API_KEY", "OPENAI_API_KEY_WORK", "OPENAI_API_KEY_RESEARCH")
    more = ("TWILIO_ACCOUNT_SID", "ZENDESK_EMAIL", "ZENDESK_TOKEN")
    return {name: f"value-of-{name.lower()}" for name in (*names, *more)}


def test_the_example_loads(tmp_path: Path) -> None:
    """keys.example.yaml is what it says: a configuration, with every value the default."""
    path = tmp_path / "keys.yaml"
    path.write_text(EXAMPLE.read_text())
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "twilio_auth_token").write_text("token\n")
    config = load_config(path, example_environ())
    assert (config.server, config.cache, config.limits) == (Server(), Cache(), Limits())
    assert len(config.keys) == 5
    assert load_services(config.services).get("acme") is not None


def members(value: object) -> Iterator[str]:
    """Every name in a document, at any depth."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield str(name)
            yield from members(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from members(inner)


MODELS: list[type[BaseModel]] = [
    Config,
    Server,
    Cache,
    Limits,
    CallLimits,
    Concurrency,
    KeyEntry,
    UsageSection,
    PriceEntry,
    BackendEntry,
    ServiceEntry,
    CarrierEntry,
    PartEntry,
]


@pytest.mark.parametrize("model", MODELS)
def test_the_example_documents_every_setting(model: type[BaseModel]) -> None:
    """A setting that is not in keys.example.yaml does not exist for users."""
    documented = set(members(yaml.safe_load(EXAMPLE.read_text())))
    named = {field.alias or name for name, field in model.model_fields.items()}
    assert named - documented == set()


def test_the_models_are_made_by_the_loader_only() -> None:
    """A key entry needs to know the services; without them it is a fault of ours."""
    with pytest.raises(TypeError):
        KeyEntry.model_validate({"service": "openai", "value": "${A}"})


def test_the_url_of_the_vault_stands_there_or_elsewhere(write: Any, tmp_path: Path) -> None:
    """It may hold a password: nothing shows it, and every command follows it."""
    url = f"postgresql://relay:{CANARY}@db.internal/relay"
    (tmp_path / "url").write_text(url + "\n")
    for text in (url, "${RELAY_DB}", "file:url"):
        path = write(f"vault: {{url: '{text}'}}")
        for mode in ("resolve", "leave"):
            config = load_config(path, {"RELAY_DB": url}, key_values=mode)
            assert config.vault.url is not None
            assert config.vault.url.text == url
            assert CANARY not in repr(config)
        assert load_config(path, {}, key_values="import").vault.url is None
        assert load_vault_place(path, {"RELAY_DB": url}) == config.vault
    assert load_vault_place(write("{"), {}) == VaultPlace()
    assert load_vault_place(write("server: {port: x}"), {}) == VaultPlace()


def test_an_url_that_is_none_of_a_vault_is_refused(write: Any, tmp_path: Path) -> None:
    """And not shown."""
    (tmp_path / "octets").write_bytes(b"\xff")
    for text, expected in (
        (f"mysql://x:{CANARY}@h/d", "expected postgresql://USER@HOST/DATABASE"),
        ("5", "expected a URL"),
        ("'${NOBODY}'", "expected the environment variable NOBODY to be set"),
        ("file:octets", "expected a URL, found octets"),
    ):
        path = write(f"vault: {{url: {text}}}")
        (mistake,) = mistakes(path)
        assert mistake.startswith(f"vault.url: {expected}")
        with pytest.raises(ConfigError, match=r"vault\.url: expected"):
            load_vault_place(path, {})


def test_the_url_of_redis_stands_there_or_elsewhere(write: Any, tmp_path: Path) -> None:
    """It may hold a password: nothing shows it. The files of TLS stand beside the configuration."""
    (tmp_path / "ca.pem").write_text("")
    url = f"rediss://relay:{CANARY}@redis.internal:6380/2?ssl_ca_certs=ca.pem"
    (tmp_path / "url").write_text(url + "\n")
    for text in (url, "${RELAY_REDIS}", "file:url"):
        path = write(f"cache: {{url: '{text}'}}")
        place = load_config(path, {"RELAY_REDIS": url}).cache.url
        assert place is not None
        assert (place.described, place.password) == ("rediss://redis.internal:6380", CANARY)
        assert place.options == {"ssl_ca_certs": str(tmp_path / "ca.pem")}
        config = load_config(path, {"RELAY_REDIS": url})
        assert CANARY not in f"{config!r} {config.cache.model_dump()}"
        assert load_config(path, {}, key_values="import").cache.url is None
    assert load_config(write("cache: {url: null}"), {}).cache.url is None


def test_an_url_that_is_none_of_redis_is_refused(write: Any) -> None:
    """And not shown."""
    for text, expected in (
        (f"http://x:{CANARY}@h", "expected redis://HOST:PORT"),
        ("5", "expected a URL"),
        ("'${NOBODY}'", "expected the environment variable NOBODY to be set"),
        (f"redis://:{CANARY}@h/x", "expected the number of a database"),
        (f"redis://:{CANARY}@one,two", "expected one host"),
        (f"redis+cluster://:{CANARY}@one/2", "expected nothing behind the hosts"),
        (f"redis://:{CANARY}@h?ssl_ca_certs=x", "expected nothing behind the ?"),
        ("rediss://h?ssl_ca_certs=x", "expected a file as ssl_ca_certs, found none"),
    ):
        (mistake,) = mistakes(write(f"cache:\n  url: {text}\n"))
        assert mistake.startswith(f"cache.url: {expected}")
        assert CANARY not in mistake
