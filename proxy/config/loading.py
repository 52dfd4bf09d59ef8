"""A file and the environment to a `Config`, or to every mistake at once."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from proxy.config.engines import VaultPlace
from proxy.config.keys import judge_hosts, judge_parts
from proxy.config.model import (
    LIST,
    MAPPING,
    BackendEntry,
    Cache,
    CallLimits,
    Concurrency,
    Config,
    HealthChecks,
    KeyEntry,
    Limits,
    QuotaEntry,
    Server,
)
from proxy.config.reading import ConfigError, read_document
from proxy.config.signin import IssuerEntry
from proxy.config.surroundings import Surroundings
from proxy.config.usage import PriceEntry, Usage
from proxy.config.values import KeyValues, resolve_key, resolve_url, seen_from, variables_in
from proxy.injection import check_credential
from proxy.services import ServiceError, Services, load_services
from vault import Secret

_NOWHERE: Final = Path("configuration")
_MODELS: Final[Mapping[tuple[str, ...], type[BaseModel]]] = {
    (): Config,
    ("server",): Server,
    ("cache",): Cache,
    ("limits",): Limits,
    ("health",): HealthChecks,
    ("limits", "services"): CallLimits,
    ("limits", "concurrency"): Concurrency,
    ("limits", "quotas"): QuotaEntry,
    ("vault",): VaultPlace,
    ("usage",): Usage,
    ("prices",): PriceEntry,
    ("keys",): KeyEntry,
    ("sign_in",): IssuerEntry,
    ("backends",): BackendEntry,
}

_WORDS: Final = {
    "missing": "expected, but missing",
    "model_type": "expected a mapping of settings",
    "dict_type": "expected a mapping",
    "tuple_type": "expected a list",
    "string_type": "expected text",
    "int_type": "expected a whole number",
    "bool_type": "expected true or false",
    "path_type": "expected a path",
}

_OF_A_NAME: Final = "[key]"
"""How pydantic says that a name is wrong, not what stands under it."""

Place = tuple[int | str, ...]


def load_config(
    path: Path | None,
    environ: Mapping[str, str],
    *,
    imported: Mapping[str, Any] | None = None,
    key_values: KeyValues = "resolve",
    document: Mapping[str, object] | None = None,
) -> Config:
    """The file's settings, or the defaults where there is no file.

    `imported`: services that `keyrelay import` registered; the file's own of the same name win.
    `document`: what the file holds, where it was read already: a pipe can't be read again.
    Raises ConfigError with one line per mistake: file, path in it, what was expected.
    """
    if path is None and not imported:
        return Config()
    if document is None:
        document = read_document(path) if path is not None else {}
    data = {name: section for name, section in document.items() if section is not None}
    mistakes: list[str] = []
    services = _with_imported(data.get("services", {}), imported or {}, mistakes)
    registry = _registry(services, mistakes)
    folder = path.parent if path is not None else Path()
    reading = _Reading(registry, environ, folder, key_values, variables_in(data))
    surroundings = reading.surroundings()
    try:
        config = Config.model_validate({**data, "services": services}, context=surroundings)
    except ValidationError as error:
        mistakes += _mistakes(error)
    if mistakes:
        raise ConfigError(tuple(f"{path or _NOWHERE}: {mistake}" for mistake in mistakes))
    return config


def load_vault_place(path: Path, environ: Mapping[str, str]) -> VaultPlace:
    """That section alone, for who goes on where others have mistakes, or where the file can't be
    read at all. Raises ConfigError for its own."""
    surroundings = _Reading(None, environ, path.parent, "leave").surroundings()
    try:
        section = read_document(path).get("vault") or {}
    except ConfigError:
        return VaultPlace()
    try:
        return VaultPlace.model_validate(section, context=surroundings)
    except ValidationError as error:
        mistakes = (f"{path}: vault.{mistake}" for mistake in _mistakes(error))
        raise ConfigError(tuple(mistakes)) from error


def _with_imported(
    own: object, imported: Mapping[str, Any], mistakes: list[str]
) -> dict[str, dict[str, Any]]:
    if not isinstance(own, dict):
        mistakes.append("services: expected a mapping of names to services")
        return dict(imported)
    good = dict[str, dict[str, Any]]()
    for name, entry in own.items():
        if isinstance(name, str) and isinstance(entry, dict):
            good[name] = entry
        else:
            mistakes.append(f"services.{name}: expected a mapping of members such as hosts:")
    return {**imported, **good}


def _registry(entries: Mapping[str, Any], mistakes: list[str]) -> Services | None:
    try:
        return load_services(entries)
    except ServiceError as error:
        mistakes += error.problems
        return None


@dataclass(frozen=True, slots=True)
class _Reading:
    """What the validators may ask. Without a registry (mistakes in it) services aren't judged."""

    registry: Services | None
    environ: Mapping[str, str]
    folder: Path
    key_values: KeyValues
    variables: frozenset[str] = frozenset()

    def surroundings(self) -> Surroundings:
        return Surroundings(
            key_value=self._key_value,
            url_value=self._url_value,
            judge_key=self._judge_key,
            known_service=self._known_service,
            near=self._near,
            variables=self.variables,
        )

    def _key_value(self, text: str) -> Secret:
        return resolve_key(text, self.key_values, self.environ, self.folder)

    def _known_service(self, name: str) -> str:
        if self.registry is None:
            return name
        known = self.registry.canonical(name)
        if known is None:
            near = difflib.get_close_matches(name, self.registry.names, n=1)
            hint = f", did you mean {near[0]}" if near else ""
            raise ValueError(f"expected the name of a service (keyrelay service list){hint}")
        return known

    def _near(self, path: Path) -> Path:
        return seen_from(self.folder, path)

    def _url_value(self, text: str) -> str | None:
        if self.key_values == "import":  # another file's: only its keys are of interest
            return None
        return resolve_url(text, self.environ, self.folder)

    def _judge_key(self, entry: KeyEntry) -> None:
        service = self.registry.get(entry.service) if self.registry else None
        if service is None:
            return
        judge_parts(service, entry.credential)
        judge_hosts(service, entry.hosts)
        if self.key_values != "leave":
            check_credential(service, entry.credential)


def _mistakes(error: ValidationError) -> Iterator[str]:
    for detail in error.errors(include_url=False, include_input=False):
        place = tuple(step for step in detail["loc"] if step not in (MAPPING, LIST, _OF_A_NAME))
        if MAPPING in detail["loc"] and place[-1] in ("value", "service"):
            place = place[:-1]
        yield f"{_path(place)}: {_expectation(detail, place)}"


def _model(place: Place) -> type[BaseModel]:
    """The section that a place lies in, by the longest part of it that names one."""
    steps = tuple(str(step) for step in place)
    return next(_MODELS[steps[:n]] for n in (2, 1, 0) if steps[:n] in _MODELS)


def _path(place: Place) -> str:
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in place)
    return text.removeprefix(".")


def _expectation(detail: ErrorDetails, place: Place) -> str:
    if detail["type"] == "extra_forbidden":
        known = ", ".join(_model(place[:-1]).model_fields)
        return f"no setting has this name; expected one of {known}"
    if detail["type"] in _WORDS:
        return _WORDS[detail["type"]]
    cause = detail.get("ctx", {}).get("error")
    text = str(cause) if isinstance(cause, ValueError) else detail["msg"]
    return text.replace("Input should be", "expected", 1)
