"""By which names callers reach this server; pure.

A page on somebody else's name can have that name lead to an address of ours: its browser then takes
our answers for the page's own. What it says in Host is still that name.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from proxy.addresses import as_literal
from proxy.errors import BadRequest
from proxy.messages import Fields, value

HERE: Final = "localhost"


class Hosts:
    """`names`: those of this server, in lower case; `*.name` stands for all that are one label
    longer. None given: whatever callers say. An address and localhost are nobody else's."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._names = frozenset(names)

    def check(self, fields: Fields) -> None:
        """Raises BadRequest where a well-formed Host names somebody else."""
        if self._names and not self._is_ours(value(fields, b"host")):
            raise BadRequest("Say a name of this server in Host: server.hosts lists them.")

    def _is_ours(self, said: bytes | None) -> bool:
        if said is None:  # as HTTP/1.0 may
            return True
        text = said.decode("latin-1").lower()
        if text.startswith("["):
            return as_literal(text[1 : text.index("]")]) is not None
        name = text.partition(":")[0]
        wild = f"*.{name.partition('.')[2]}"
        return name == HERE or not self._names.isdisjoint((name, wild)) or bool(as_literal(name))


ANY: Final = Hosts()
