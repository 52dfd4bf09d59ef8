"""What a validator may ask beyond the value, and the names that are judged with it.

It finds it in the validation context, a `Surroundings`, which `loading.py` makes.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

from pydantic import PlainValidator, ValidationInfo

from vault import Secret

if TYPE_CHECKING:
    from proxy.config.model import KeyEntry

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What lies around a file: how a key's text becomes a secret, and what is known of services.

    `url_value`: the same for the URL of an engine, which may also stand there as it is; None: it is
    not followed now. `near`: a path that stands in the file, as seen from the file. All raise
    ValueError with one sentence that holds no value. `variables`: of the environment, that stand in
    the file in a value's place.
    """

    key_value: Callable[[str], Secret]
    url_value: Callable[[str], str | None]
    judge_key: Callable[[KeyEntry], None]
    known_service: Callable[[str], str]
    near: Callable[[Path], Path]
    variables: frozenset[str] = frozenset()


def surroundings_of(info: ValidationInfo) -> Surroundings:
    """What the loader gave; a model can't be made without it."""
    if not isinstance(info.context, Surroundings):
        raise TypeError("settings are made by load_config")
    return info.context


def _name(text: object) -> str:
    if isinstance(text, str) and _NAME.fullmatch(text):
        return text
    raise ValueError("expected 1 to 64 of a-z, 0-9, _ and -, a letter or digit first")


def _service(text: object, info: ValidationInfo) -> str:
    return surroundings_of(info).known_service(_name(text))


Name = Annotated[str, PlainValidator(_name)]
ServiceName = Annotated[str, PlainValidator(_service)]
