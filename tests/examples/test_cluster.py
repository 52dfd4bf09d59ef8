"""What examples/deploy says of several instances: its shapes by the schemas of those who read it,
and three instances as it starts them, over real engines and behind a real nginx."""

from __future__ import annotations

import asyncio
import json
import re
import secrets
import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from jsonschema import Draft7Validator

from proxy.config import Config, load_config
from tests.support.caller import Caller, call
from tests.support.command import command
from tests.support.engines import RunningPostgres, RunningRedis
from tests.support.examples import free_port
from tests.support.origin import Exchange, Origin
from tests.support.process import Served, served

DEPLOY = Path(__file__).parent.parent.parent / "examples/deploy"
CLUSTER, KUBERNETES = DEPLOY / "cluster", DEPLOY / "kubernetes"
COMPOSE = yaml.safe_load((CLUSTER / "compose.yaml").read_text())
NGINX = (CLUSTER / "nginx.conf").read_text()
MANIFESTS = [
    manifest
    for path in sorted(KUBERNETES.glob("*.yaml"))
    for manifest in yaml.safe_load_all(path.read_text())
]
ENVIRONMENT = {
    "KEYRELAY_VAULT": "postgresql://keyrelay:x@postgres/keyrelay",
    "KEYRELAY_CACHE": "redis://:x@redis:6379/0",
}
RELEASES = ("1.30", "1.37")
"""Of Kubernetes: the oldest that knows all that is written here, and the newest known here."""

MONITOR = {
    "required": ["apiVersion", "kind", "metadata", "spec"],
    "properties": {
        "spec": {
            "required": ["selector", "endpoints"],
            "additionalProperties": False,
            "properties": {
                "selector": {
                    "required": ["matchLabels"],
                    "additionalProperties": False,
                    "properties": {"matchLabels": {"type": "object"}},
                },
                "endpoints": {
                    "type": "array",
                    "minItems": 1,
                    "items": {
                        "additionalProperties": False,
                        "properties": {
                            "port": {"type": "string"},
                            "path": {"type": "string", "pattern": "^/"},
                            "interval": {"type": "string", "pattern": "^[0-9]+(ms|s|m|h)$"},
                        },
                    },
                },
            },
        },
    },
}
"""As much of the operator's own schema as is used here."""


def of_kind(kind: str) -> Any:
    [found] = [manifest for manifest in MANIFESTS if manifest["kind"] == kind]
    return found


POD = of_kind("Deployment")["spec"]["template"]["spec"]
[CONTAINER] = POD["containers"]


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda manifest: manifest["kind"])
def test_kubernetes_knows_every_member(manifest: dict[str, Any], release: str) -> None:
    """By its own schemas, strictly: no member that it would not know."""
    if manifest["kind"] == "ServiceMonitor":
        Draft7Validator(MONITOR).validate(manifest)
    else:
        kubernetes_validate.validate(manifest, release, strict=True)


@pytest.mark.parametrize(
    "path", sorted(DEPLOY.glob("**/compose.yaml")), ids=lambda p: p.parent.name
)
def test_compose_knows_every_member(path: Path) -> None:
    """By the schema of its specification."""
    told = files("check_jsonschema") / "builtin_schemas/vendor/compose-spec.json"
    document = yaml.safe_load(path.read_text())
    Draft7Validator(json.loads(told.read_text())).validate(document)


def test_a_member_that_is_none_would_be_found() -> None:
    """The schemas are strict."""
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate({**of_kind("Service"), "sepc": {}}, RELEASES[1], strict=True)


def test_probes_ask_what_is_there() -> None:
    """Ready once, then alive: a lost engine ends no process, and bars no seen caller."""
    probes = {
        name: CONTAINER[f"{name}Probe"]["httpGet"] for name in ("startup", "liveness", "readiness")
    }
    assert {probe["port"] for probe in probes.values()} == {"http"}
    asked = [probes[name]["path"] for name in ("startup", "liveness", "readiness")]
    assert asked == ["/health/ready", "/health/live", "/health/live"]


# The settings.


def configured(text: str, tmp_path: Path) -> Config:
    path = tmp_path / "keys.yaml"
    path.write_text(text)
    return load_config(path, ENVIRONMENT)


def test_the_settings_are_there_and_name_both_engines(tmp_path: Path) -> None:
    """Each from a variable that the instances are given."""
    texts = (CLUSTER / "config/keys.yaml").read_text(), of_kind("ConfigMap")["data"]["keys.yaml"]
    for text in texts:
        config = configured(text, tmp_path)
        assert config.vault.url is not None
        assert config.vault.url.text == ENVIRONMENT["KEYRELAY_VAULT"]
        assert config.cache.url is not None
        assert set(re.findall(r"\$\{(\w+)\}", text)) == set(ENVIRONMENT)
    given = {one["name"] for one in CONTAINER["env"]}
    assert given > set(ENVIRONMENT)
    for name in ("keyrelay-1", "keyrelay-2", "keyrelay-3"):
        assert COMPOSE["services"][name]["environment"].keys() > ENVIRONMENT.keys()


def test_calls_in_flight_have_time_to_end(tmp_path: Path) -> None:
    """Longer than the server gives them, and than nobody sends new ones."""
    config = configured(of_kind("ConfigMap")["data"]["keys.yaml"], tmp_path)
    pause = CONTAINER["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert POD["terminationGracePeriodSeconds"] > config.server.shutdown_grace + pause
    there = load_config(CLUSTER / "config/keys.yaml", ENVIRONMENT)
    for name in ("keyrelay-1", "balancer"):
        seconds = COMPOSE["services"][name]["stop_grace_period"].removesuffix("s")
        assert float(seconds) > there.server.shutdown_grace


def test_the_balancer_is_believed_and_nobody_else() -> None:
    """Its address is fixed, and is the one that the settings trust."""
    balancer = COMPOSE["services"]["balancer"]["networks"]["front"]["ipv4_address"]
    text = (CLUSTER / "config/keys.yaml").read_text()
    assert yaml.safe_load(text)["server"]["trusted_proxies"] == [balancer]


# The manifests among each other.


def test_ports_and_names_lead_to_each_other() -> None:
    """From ServiceMonitor to Service to container; one master key, from one Secret, as a file."""
    labels = of_kind("Deployment")["spec"]["template"]["metadata"]["labels"]
    assert of_kind("Service")["spec"]["selector"] == labels
    assert of_kind("PodDisruptionBudget")["spec"]["selector"]["matchLabels"] == labels
    ports = {port["name"]: port["containerPort"] for port in CONTAINER["ports"]}
    offered = {port["name"]: port["targetPort"] for port in of_kind("Service")["spec"]["ports"]}
    assert set(offered.values()) == set(ports)
    [endpoint] = of_kind("ServiceMonitor")["spec"]["endpoints"]
    assert endpoint["port"] in offered
    config = yaml.safe_load(of_kind("ConfigMap")["data"]["keys.yaml"])["server"]
    assert config["metrics_listen"].rpartition(":")[2] == str(ports["metrics"])
    secret = of_kind("Secret")
    needed = {
        one["valueFrom"]["secretKeyRef"]["key"] for one in CONTAINER["env"] if "valueFrom" in one
    }
    [volume] = [one["secret"] for one in POD["volumes"] if "secret" in one]
    needed |= {item["key"] for item in volume["items"]}
    assert needed == set(secret["stringData"])
    assert volume["secretName"] == secret["metadata"]["name"]


def test_the_pod_may_do_nothing_but_its_work() -> None:
    """No root, no privilege, nothing to write to but its own folders; room is asked for."""
    assert (POD["securityContext"]["runAsNonRoot"], POD["securityContext"]["runAsUser"]) == (
        True,
        10001,
    )
    assert POD["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    own = CONTAINER["securityContext"]
    assert (own["readOnlyRootFilesystem"], own["allowPrivilegeEscalation"]) == (True, False)
    assert own["capabilities"] == {"drop": ["ALL"]}
    assert not POD["automountServiceAccountToken"]
    assert {"cpu", "memory"} == CONTAINER["resources"]["requests"].keys()
    writable = [one["mountPath"] for one in CONTAINER["volumeMounts"] if not one.get("readOnly")]
    assert writable == ["/data", "/tmp"]
    data = next(one["value"] for one in CONTAINER["env"] if one["name"] == "KEYRELAY_DATA")
    assert Path(data).parent == Path("/data")


@pytest.mark.parametrize("name", ["keyrelay-1", "keyrelay-2", "keyrelay-3", "balancer", "redis"])
def test_a_container_may_do_nothing_but_its_work(name: str) -> None:
    """As the pod."""
    service = COMPOSE["services"][name]
    assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])
    assert service["security_opt"] == ["no-new-privileges:true"]


@pytest.mark.parametrize(
    "path",
    [*sorted(KUBERNETES.glob("*")), *sorted(CLUSTER.glob("*.*"))],
    ids=lambda path: path.name,
)
def test_every_file_says_how_it_is_used(path: Path) -> None:
    """At its top."""
    assert path.read_text().startswith("# ")


# As it runs.


async def test_three_instances_start_at_once_and_are_one(
    tmp_path: Path, postgres: RunningPostgres, redis: RunningRedis
) -> None:
    """Over empty engines, with the settings of the example and one master key; behind its nginx a
    call arrives as it was sent, and an event when it is sent."""
    gate = asyncio.Event()

    async def events(exchange: Exchange) -> None:
        await exchange.start(200, [("Content-Type", "text/event-stream")])
        await exchange.chunk(b"data: first\n\n")
        await exchange.wait(gate, 60)
        await exchange.chunk(b"data: second\n\n")
        await exchange.finish()

    environ = surroundings(tmp_path, postgres, redis)
    async with AsyncExitStack() as stack:
        origin = await stack.enter_async_context(Origin(events))
        starting = (instance(tmp_path / name, environ) for name in ("one", "two", "three"))
        up = await asyncio.gather(*(stack.enter_async_context(one) for one in starting))
        token = await prepared(tmp_path / "one", origin, environ)
        ready = [await call(one.url, "GET", "/health/ready") for one in up]
        assert [one.status for one in ready] == [200] * 3
        url = (
            await stack.enter_async_context(balanced(up, tmp_path))
            if shutil.which("nginx")
            else up[1].url
        )
        async with await Caller.connect(url) as caller:
            target = f"/proxy?server={origin.url}/v1//c&service=openai&q=%7e%2F+x"
            await caller.request("GET", target, ("Authorization", f"Bearer {token}"))
            head = await caller.head()
            assert head.status == 200, await caller.answer()
            assert await caller.chunk() == b"data: first\n\n"
            gate.set()
            assert await caller.chunk() == b"data: second\n\n"
            assert await caller.chunk() == b""
        assert origin.requests[0].target == "/v1//c?q=%7e%2F+x"


def surroundings(tmp_path: Path, postgres: RunningPostgres, redis: RunningRedis) -> dict[str, str]:
    """What each instance is given."""
    key = tmp_path / "master.key"
    key.touch(mode=0o440)
    key.write_text(f"{secrets.token_urlsafe(32)}\n")
    return {
        "KEYRELAY_CONFIG": str(CLUSTER / "config/keys.yaml"),
        "KEYRELAY_MASTER_KEY_FILE": str(key),
        "KEYRELAY_VAULT": postgres.another(),
        "KEYRELAY_CACHE": redis.url,
    }


@asynccontextmanager
async def instance(data: Path, environ: dict[str, str]) -> AsyncIterator[Served]:
    async with served(data, **environ) as up:
        yield up


async def prepared(data: Path, origin: Origin, environ: dict[str, str]) -> str:
    """A key, a place where it may go, and a token."""
    given = data.parent / "given.yaml"
    keys, backends = (
        {"openai": "sk-canary-0123456789abcdefghij"},
        [{"service": "openai", "url": origin.url}],
    )
    given.write_text(yaml.safe_dump({"keys": keys, "backends": backends}))
    done = await command(data, "import", str(given), **environ)
    assert done.code == 0, done.err
    issued = await command(data, "token", "issue", "me", **environ)
    assert issued.code == 0, issued.err
    return issued.out.strip()


@asynccontextmanager
async def balanced(up: list[Served], folder: Path) -> AsyncIterator[str]:
    """The example's nginx before these, on a free port; the last one where there is no nginx."""
    if shutil.which("nginx") is None:
        yield up[-1].url
        return
    port = free_port()
    text = NGINX.replace("/tmp/", f"{folder}/").replace("listen 8000", f"listen 127.0.0.1:{port}")
    for number, one in enumerate(up, 1):
        text = text.replace(f"keyrelay-{number}:8000", one.url.removeprefix("http://"))
    path = folder / "nginx.conf"
    path.write_text(text.replace("worker_rlimit_nofile 65536;", ""))  # as many as the tests have
    command = ("nginx", "-c", str(path), "-e", str(folder / "error.log"), "-g", "daemon off;")
    process = await asyncio.create_subprocess_exec(*command)
    try:
        async with asyncio.timeout(30):
            while not await listens(port):
                assert process.returncode is None
                await asyncio.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        await process.wait()


async def listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True
