"""Configuration text to plain data: safe YAML in which no key is written twice."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import yaml

_MAX_OCTETS: Final = 4 * 2**20


class ConfigError(Exception):
    """The configuration can't be used: one line per mistake, never with a value in it."""

    def __init__(self, mistakes: tuple[str, ...]) -> None:
        super().__init__("\n".join(mistakes))
        self.mistakes = mistakes


def read_document(path: Path) -> dict[str, object]:
    """The mapping that the file holds; an empty file is an empty mapping. Raises ConfigError."""
    try:
        text = _read_text(path)
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        data = yaml.safe_load(text)
    except ConfigError:
        raise
    except Exception as error:  # a wrong tag ends in whatever its constructor stumbles over
        raise ConfigError((f"{path}: {_yaml_sentence(error)}",)) from None
    if node is not None and (twice := tuple(_duplicates(node, "", set()))):
        raise ConfigError(
            tuple(f"{path}: {place}: expected once, written twice" for place in twice)
        )
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise ConfigError((f"{path}: expected a mapping of sections such as server: and keys:",))
    return data


def _read_text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            octets = file.read(_MAX_OCTETS + 1)  # it may be endless, such as /dev/zero
    except OSError as error:
        reason = (error.strerror or type(error).__name__).lower()
        raise ConfigError((f"{path}: can't be read: {reason}",)) from None
    if len(octets) > _MAX_OCTETS:
        raise ConfigError((f"{path}: expected at most 4 MiB",))
    return octets.decode("utf-8-sig")


def _yaml_sentence(error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        return "expected UTF-8 text"
    mark = getattr(error, "problem_mark", None)
    where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
    return f'{where}expected YAML (inside {{ }} a value such as "${{NAME}}" needs quotes)'


def _duplicates(node: yaml.Node, place: str, seen: set[int]) -> Iterator[str]:
    """The places of mapping keys that stand in one mapping more than once."""
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        names: set[str] = set()
        for key, value in node.value:
            name = str(key.value) if isinstance(key, yaml.ScalarNode) else "?"
            inner = f"{place}.{name}" if place else name
            if name in names:
                yield inner
            names.add(name)
            yield from _duplicates(value, inner, seen)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield from _duplicates(value, f"{place}[{index}]", seen)
