"""Writes a provider's key into a request, and finds it again in an answer. Pure.

The only room in which a secret is read: header, query, basic and path are the ways to carry it.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import chain
from typing import Final
from urllib.parse import quote_from_bytes

from proxy.destinations import without_parameters
from proxy.errors import InternalError
from proxy.messages import Fields
from proxy.services.model import Carrier, Part, Service, Slot
from proxy.services.slots import every_slot
from vault import Credential

_PLACEHOLDER: Final = re.compile(r"\{([a-z][a-z0-9_]*)\}")
_CONTROL: Final = re.compile(rb"[\x00-\x1f\x7f]")
_IN_SEGMENT: Final = "!$&'()*+,;=:@"  # RFC 3986 section 3.3: what a path segment may hold as it is
_SHORTEST_ECHO: Final = 8
_LONGEST_PART: Final = 8192


@dataclass(frozen=True, slots=True)
class Message:
    """The parts of a request where a key may stand; `path` starts with `/`, `query` may be None."""

    fields: Fields
    path: str
    query: str | None = None


def inject(
    slots: Iterable[Slot], credential: Credential, message: Message, host: str = ""
) -> Message:
    """The message with the credential in its slots, and nothing else in them.

    `host` is the host that is called, for templates that name it. Raises InternalError, without the
    value, when the stored credential has no such part or can't stand in a request.
    """
    for slot in slots:
        message = INJECTORS[slot.carrier](slot, _text(slot, credential, host), message)
    return message


def _text(slot: Slot, credential: Credential, host: str) -> bytes:
    """The slot's template with everything in place."""
    texts, names = _template(slot.template)
    try:
        parts = [host.encode() if name == "host" else credential[name].reveal() for name in names]
        text = b"".join(chain(*zip(texts, [*parts, b""], strict=True)))
    except KeyError:
        raise InternalError("the stored key lacks a part; ask the admin to add it again") from None
    if _CONTROL.search(text):
        raise InternalError("the stored key can't be sent; ask the admin to add it again")
    return text


@lru_cache(maxsize=1024)
def _template(template: str) -> tuple[tuple[bytes, ...], tuple[str, ...]]:
    """What stands between the placeholders of a template, and their names."""
    pieces = _PLACEHOLDER.split(template)
    return tuple(text.encode() for text in pieces[::2]), tuple(pieces[1::2])


def _into_header(slot: Slot, text: bytes, message: Message) -> Message:
    name = slot.name.lower().encode()
    others = (field for field in message.fields if field[0] != name)
    return Message((*others, (name, text)), message.path, message.query)


def _into_basic(slot: Slot, text: bytes, message: Message) -> Message:
    """RFC 7617 section 2; the text is `user-id:password`."""
    return _into_header(slot, b"Basic " + base64.b64encode(text), message)


def _into_query(slot: Slot, text: bytes, message: Message) -> Message:
    others = without_parameters(message.query, (slot.name,))
    ours = f"{quote_from_bytes(slot.name.encode(), safe='')}={quote_from_bytes(text, safe='')}"
    return replace(message, query=f"{others}&{ours}" if others else ours)


def _into_path(slot: Slot, text: bytes, message: Message) -> Message:
    """The segment of the key stands first, or second behind a word of `after`.

    One that is there already (`bot`, or `bot` with a key of the caller's) gives way to it.
    """
    segments = message.path.split("/")
    place = 2 if len(segments) > 2 and segments[1] in slot.after else 1
    given = bool(slot.name) and segments[place].startswith(slot.name)
    segments[place : place + given] = [quote_from_bytes(text, safe=_IN_SEGMENT)]
    return replace(message, path="/".join(segments))


INJECTORS: Final[Mapping[Carrier, Callable[[Slot, bytes, Message], Message]]] = {
    "header": _into_header,
    "query": _into_query,
    "basic": _into_basic,
    "path": _into_path,
}


def check_credential(service: Service, credential: Credential) -> None:
    """Says what is wrong with a credential before it is stored.

    Raises ValueError with one sentence that names the part and never holds its value.
    """
    if service.keyless:
        raise ValueError(f"{service.name} needs no key")
    parts = {part.name: part for part in service.parts}
    if unknown := sorted(set(credential) - set(parts)):
        raise ValueError(f"{service.name} has no part {unknown[0]}, only {', '.join(parts)}")
    for name, part in parts.items():
        if name not in credential:
            raise ValueError(f"{service.name} needs the {part.title} too (part {name})")
        _check_part(service, part, credential[name].reveal())


def _check_part(service: Service, part: Part, octets: bytes) -> None:
    for wrong, sentence in (
        (not octets, "is empty"),
        (octets != octets.strip(), "has white space around it"),
        (_CONTROL.search(octets), "has a line break or another control character in it"),
        (len(octets) > _LONGEST_PART, f"is longer than {_LONGEST_PART} octets"),
        (
            _stands_bare(service, part) and not octets.isascii(),
            "has characters outside ASCII in it",
        ),
        (_is_user(service, part) and b":" in octets, "must not have a colon in it"),
        (_starts_with_prefix(service, part, octets), "has a prefix that keyrelay writes itself"),
    ):
        if wrong:
            raise ValueError(f"the {part.title} {sentence}")


def _slots_with(service: Service, part: Part) -> Iterator[Slot]:
    slots = (*every_slot(service), *service.backend_slots)
    return (slot for slot in slots if f"{{{part.name}}}" in slot.template)


def _stands_bare(service: Service, part: Part) -> bool:
    return any(slot.carrier == "header" for slot in _slots_with(service, part))


def _is_user(service: Service, part: Part) -> bool:
    """Whether the part stands before the colon of RFC 7617."""
    return any(
        slot.carrier == "basic" and f"{{{part.name}}}" in slot.template.partition(":")[0]
        for slot in _slots_with(service, part)
    )


def _starts_with_prefix(service: Service, part: Part, octets: bytes) -> bool:
    prefixes = (
        slot.template.partition(f"{{{part.name}}}")[0].lower().encode()
        for slot in _slots_with(service, part)
        if slot.carrier == "header"
    )
    return any(p.endswith((b" ", b"=")) and octets.lower().startswith(p) for p in prefixes)


class EchoMatcher:
    """Finds the secret parts of a credential in octets: as they are, and as requests spell them.

    Parts that may be shown, and those shorter than 8 octets, are not looked for.
    """

    __slots__ = ("_forms", "_longest")

    def __init__(self, forms: Iterable[bytes]) -> None:
        self._forms = tuple(sorted({form for form in forms if len(form) >= _SHORTEST_ECHO}))
        self._longest = max(map(len, self._forms), default=0)

    @classmethod
    def of(cls, credential: Credential, service: Service) -> EchoMatcher:
        """The matcher for a service's credential."""
        return cls(_forms(credential, service))

    def in_value(self, octets: bytes) -> bool:
        """Whether the octets hold a secret."""
        for form in self._forms:  # noqa: SIM110 - half the cost, and it looks at every chunk
            if form in octets:
                return True
        return False

    def scanner(self) -> EchoScanner:
        """A search through a stream, from its start."""
        return EchoScanner(self, self._longest)

    def __repr__(self) -> str:
        return "EchoMatcher(…)"


class EchoScanner:
    """Searches octets that come in pieces; a secret that lies across pieces is found too."""

    __slots__ = ("_kept", "_matcher", "_tail", "found")

    def __init__(self, matcher: EchoMatcher, longest: int) -> None:
        self._matcher = matcher
        self._kept = max(longest - 1, 0)
        self._tail = b""
        self.found = False

    def feed(self, chunk: bytes) -> bool:
        """Takes the next octets; whether a secret has been seen so far."""
        if not self.found and self._kept:
            # Only the seam is copied: the chunk may be long.
            seam = self._tail + chunk[: self._kept]
            self.found = self._matcher.in_value(seam) or self._matcher.in_value(chunk)
            self._tail = (self._tail + chunk[-self._kept :])[-self._kept :]
        return self.found

    def __repr__(self) -> str:
        return f"EchoScanner(found={self.found})"


def _forms(credential: Credential, service: Service) -> Iterator[bytes]:
    secrets = {part.name for part in service.parts if part.secret}
    for name in secrets & set(credential):
        yield from _spellings(credential[name].reveal())
    for slot in (*every_slot(service), *service.backend_slots):
        held = set(_PLACEHOLDER.findall(slot.template))
        if slot.carrier == "basic" and held & secrets and held <= set(credential):
            yield base64.b64encode(_text(slot, credential, ""))


def _spellings(octets: bytes) -> Iterator[bytes]:
    if len(octets) < _SHORTEST_ECHO:
        return
    yield octets
    for safe in ("", "/", _IN_SEGMENT):
        encoded = quote_from_bytes(octets, safe=safe)
        yield encoded.encode()
        yield re.sub("%..", lambda triplet: triplet[0].lower(), encoded).encode()
    in_json = json.dumps(octets.decode("utf-8", "replace"))[1:-1].encode()
    yield in_json
    yield in_json.replace(b"/", rb"\/")
