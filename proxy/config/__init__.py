"""The configuration: one YAML file and the environment, parsed once into typed frozen objects."""

from proxy.config.declared import declared_backends, declared_keys
from proxy.config.engines import EngineUrl, VaultPlace, url_of_vault
from proxy.config.imported import (
    IMPORTED,
    importing_alone,
    read_imported_services,
    services_of,
    staged_services,
    write_imported_services,
)
from proxy.config.keys import judge_hosts, make_key
from proxy.config.loading import load_config, load_vault_place
from proxy.config.model import (
    MOST_WORKERS,
    BackendEntry,
    Cache,
    CallLimits,
    Config,
    KeyEntry,
    Limits,
    Server,
)
from proxy.config.reading import ConfigError, read_document
from proxy.config.units import parse_seconds
from proxy.config.values import KeyValues, resolve_url, seen_from

__all__ = [
    "IMPORTED",
    "MOST_WORKERS",
    "BackendEntry",
    "Cache",
    "CallLimits",
    "Config",
    "ConfigError",
    "EngineUrl",
    "KeyEntry",
    "KeyValues",
    "Limits",
    "Server",
    "VaultPlace",
    "declared_backends",
    "declared_keys",
    "importing_alone",
    "judge_hosts",
    "load_config",
    "load_vault_place",
    "make_key",
    "parse_seconds",
    "read_document",
    "read_imported_services",
    "resolve_url",
    "seen_from",
    "services_of",
    "staged_services",
    "url_of_vault",
    "write_imported_services",
]
