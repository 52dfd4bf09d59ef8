"""The URLs of the admin's own engines. One may hold a password, and shows itself nowhere."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Final

from pydantic import PlainValidator, ValidationInfo

from proxy.config.section import Section
from proxy.config.surroundings import surroundings_of
from proxy.engine import FILES, Place

_VAULTS: Final = ("postgresql://", "postgres://")


@dataclass(frozen=True, slots=True)
class EngineUrl:
    """Where an engine is, and who comes."""

    text: str = field(repr=False)


def _engine_url(text: object, info: ValidationInfo) -> EngineUrl | None:
    if not isinstance(text, str):
        raise ValueError("expected a URL, ${NAME} or file:PATH")
    found = surroundings_of(info).url_value(text)
    return None if found is None else EngineUrl(found)


def _vault_url(text: object, info: ValidationInfo) -> EngineUrl | None:
    url = None if text is None else _engine_url(text, info)
    return None if url is None else EngineUrl(url_of_vault(url.text))


def url_of_vault(text: str) -> str:
    """A URL that a vault can be at; raises ValueError that does not show it."""
    if not text.startswith(_VAULTS):
        raise ValueError("expected postgresql://USER@HOST/DATABASE, by ${NAME} or file:PATH too")
    return text


class VaultPlace(Section):
    """Where the vault's database is; None: vault.db in the data directory."""

    url: Annotated[EngineUrl | None, PlainValidator(_vault_url)] = None


def _redis(text: object, info: ValidationInfo) -> Place | None:
    """The files of TLS stand there as seen from the configuration."""
    url = None if text is None else _engine_url(text, info)
    if url is None:
        return None
    place, near = Place.of(url.text), surroundings_of(info).near
    options = dict(place.options)
    for name in options.keys() & set(FILES):
        options[name] = str(near(Path(options[name])))
        if not Path(options[name]).is_file():
            raise ValueError(f"expected a file as {name}, found none at {options[name]}")
    return replace(place, options=options)


RedisUrl = Annotated[Place | None, PlainValidator(_redis)]
"""Where the Redis is that processes share."""
