"""From the ends of an answer to the tokens that it says it used. Pure.

Three styles are read, by the names of their members: OpenAI's (chat and responses, and whoever
speaks like them), Anthropic's and Google's. Of a long answer only beginning and end are at hand; an
object that is cut there still shows what stands directly in it: what is left of it is put behind a
brace of our own (or before one) and must then be JSON to the last octet. A name that stands deeper,
or in a text, never passes that.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import orjson

from proxy.record import Tokens

Found = Mapping[str, Any]

_USAGE: Final = re.compile(rb'"usage(?:Metadata)?"\s*:\s*\{')
_MODEL: Final = re.compile(rb'"model(?:Version)?"\s*:\s*"((?:[^"\\\x00-\x1f]|\\.){1,256})"')
_IN_BODY: Final = ((b"{", b"}"), (b"[{", b"}]"))
_IN_EVENT: Final = ((b"{", b"}"), (b'{"":{', b"}}"))
"""What may stand around the member: in a body an object, or the last of a list; in an event the
object itself, or one inside it (`message`, `response`)."""
_MOST_COUNTED: Final = 2**32
"""No answer is as large; and no upstream that lies brings the sums of a day beyond 64 bits."""

Braces = tuple[tuple[bytes, bytes], ...]


def of_body(head: bytes, tail: bytes) -> Tokens | None:
    """What one JSON document used, by its first and its last octets."""
    found = _behind(tail, _IN_BODY)
    return None if found is None else _tokens(found, _model(found) or _before(head, _IN_BODY))


def of_stream(head: bytes, tail: bytes) -> Tokens | None:
    """What a stream of events used: its last event with numbers, above its first (Anthropic tells
    the input at the start)."""
    last = next(_events(tail, last_first=True), None)
    if last is None and head is tail:
        return None
    first = next(_events(head, last_first=False), None)
    if first is None and last is None:
        return None
    found: dict[str, Any] = {}
    for one in (first or {}, last or {}):
        numbers = {name: count for name, count in _usage(one).items() if count is not None}
        found = {**found, **one, "usage": {**found.get("usage", {}), **numbers}}
    found.pop("usageMetadata", None)
    return _tokens(found, _model(found) or _model_of_stream(head))


def _events(octets: bytes, *, last_first: bool) -> Iterator[Found]:
    lines = octets.splitlines()
    for line in reversed(lines) if last_first else lines:
        found = _behind(line, _IN_EVENT) if b'"usage' in line else None
        if found is not None:
            yield found


def _model_of_stream(head: bytes) -> str:
    for line in head.splitlines():
        if b'"model' in line and line.startswith(b"data:"):
            model = _before(line[5:], _IN_EVENT)
            if model:
                return model
    return ""


def _behind(octets: bytes, around: Braces) -> Found | None:
    """The object that `usage` is the last such member of, from there to its end."""
    for found in reversed([*_USAGE.finditer(octets)]):
        for opening, _ in around:
            holder = _innermost(_loaded(opening + octets[found.start() :]))
            if holder is not None:
                return holder
    return None


def _before(octets: bytes, around: Braces) -> str:
    """The text of the first member `model` that stands directly in the object."""
    for found in _MODEL.finditer(octets):
        start = octets[: found.start()].rstrip().removesuffix(b",")
        for _, closing in around:
            if _loaded(start + closing) is not None:
                model = _loaded(b'"' + found[1] + b'"')
                return model if isinstance(model, str) else ""
    return ""


def _loaded(octets: bytes) -> Any:
    try:
        return orjson.loads(octets)
    except orjson.JSONDecodeError:
        return None


def _innermost(document: Any) -> Found | None:
    if isinstance(document, list):  # Google's streams that are no events
        document = document[0]
    if not isinstance(document, dict):
        return None
    inner = document.get("", document)
    return inner if isinstance(inner, dict) else None


def _usage(found: Found) -> Found:
    usage = found.get("usage") or found.get("usageMetadata")
    return usage if isinstance(usage, dict) else {}


def _model(found: Found) -> str:
    model = found.get("model") or found.get("modelVersion")
    return model if isinstance(model, str) else ""


def _tokens(found: Found, model: str) -> Tokens | None:
    usage = _usage(found)
    for name, read in _STYLES:
        if name in usage:
            return read(usage, model)
    return None


def _openai_chat(usage: Found, model: str) -> Tokens:
    cached = _count(usage.get("prompt_tokens_details"), "cached_tokens")
    given = _count(usage, "prompt_tokens")
    return Tokens(model, given, _count(usage, "completion_tokens"), min(cached, given))


def _input_and_output(usage: Found, model: str) -> Tokens:
    """OpenAI's responses count what was cached in the input, Anthropic's messages beside it."""
    beside = _count(usage, "cache_read_input_tokens")
    given = _count(usage, "input_tokens") + beside + _count(usage, "cache_creation_input_tokens")
    cached = _count(usage.get("input_tokens_details"), "cached_tokens") + beside
    return Tokens(model, given, _count(usage, "output_tokens"), min(cached, given))


def _google(usage: Found, model: str) -> Tokens:
    """Thoughts are charged as output, and stand beside it."""
    given = _count(usage, "promptTokenCount") + _count(usage, "toolUsePromptTokenCount")
    made = _count(usage, "candidatesTokenCount") + _count(usage, "thoughtsTokenCount")
    return Tokens(model, given, made, min(_count(usage, "cachedContentTokenCount"), given))


_STYLES: Final = (
    ("prompt_tokens", _openai_chat),
    ("input_tokens", _input_and_output),
    ("output_tokens", _input_and_output),
    ("promptTokenCount", _google),
)
"""The member by which each style is known."""


def _count(usage: object, name: str) -> int:
    count = usage.get(name) if isinstance(usage, dict) else None
    good = isinstance(count, int) and not isinstance(count, bool) and 0 <= count < _MOST_COUNTED
    return count if good else 0  # type: ignore[return-value]
