"""What a token is narrowed to, from text, and whether a call stays within it. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from proxy.destinations import Target, parse_destination, path_is_plain
from proxy.errors import Forbidden, RelayError
from proxy.messages import Fields, values
from vault import Narrowing, below

_METHOD: Final = re.compile(r"[A-Z][A-Z-]{0,31}", re.ASCII)
_NEVER: Final = frozenset({"CONNECT", "TRACE"})
_ORIGIN: Final = re.compile(r"[a-z][a-z0-9+.-]*://[^\s/?#@\\*]+", re.ASCII)
_NO_HOST: Final = "expected a host such as api.openai.com, without scheme, port and path"
_NO_PATH: Final = "expected a path such as /v1/chat, as it stands in calls"
_ASK: Final = "the admin says what it may, in sign_in or with: keyrelay token set NAME"


def parse_host(text: str) -> str:
    """A host as destinations have it; raises ValueError."""
    literal = f"[{text}]" if text.count(":") > 1 and not text.startswith("[") else text
    target = _judged(f"https://{literal}", _NO_HOST)
    rest = literal.rpartition("]")[2]
    if "/" in text or "?" in text or ":" in rest:
        raise ValueError(_NO_HOST)
    return target.host


def parse_path(text: str) -> str:
    """A path prefix: `/a` means /a and all below, `/a/` only what is below; raises ValueError."""
    if not text.startswith("/") or "?" in text:
        raise ValueError(_NO_PATH)
    path = _judged(f"https://host.invalid{text}", _NO_PATH).path
    if not path_is_plain(path):
        raise ValueError(f"{_NO_PATH}: without %2F, %5C, %25, a semicolon or //")
    return path


def parse_method(text: str) -> str:
    """A method in capitals; raises ValueError."""
    method = text.upper()
    if not _METHOD.fullmatch(method) or method in _NEVER:
        raise ValueError("expected a method such as GET or POST; CONNECT and TRACE are none here")
    return method


def parse_origin(text: str) -> str:
    """An origin as browsers send it; raises ValueError."""
    if text == "*":
        raise ValueError("expected exact origins: a * would let every page use what it holds")
    if not _ORIGIN.fullmatch(text):
        raise ValueError("expected an origin as browsers send it, such as https://app.example.com")
    if text.startswith(("http://", "https://")):
        target = _judged(text + "/")
        if text != f"{target.scheme}://{target.authority}":
            raise ValueError("expected lower case, no path, and no port where it is the default")
    return text


PARSERS: Final[Mapping[str, Callable[[str], str]]] = {
    "hosts": parse_host,
    "paths": parse_path,
    "methods": parse_method,
    "origins": parse_origin,
}
"""By the members of Narrowing."""


def canonical(member: str, texts: Iterable[str]) -> tuple[str, ...]:
    """The texts of one member as the vault keeps them, each once; raises ValueError."""
    return tuple(sorted({PARSERS[member](text) for text in texts}))


def narrowing_of(said: Narrowing) -> Narrowing:
    """All four members in canonical form; raises ValueError."""
    return Narrowing(*(canonical(*pair) for pair in zip(Narrowing._fields, said, strict=True)))


def wider(own: Narrowing, wanted: Narrowing) -> str:
    """The member in which something is wanted that is not within one's own; empty: none."""
    for member, has, wants in zip(Narrowing._fields, own, wanted, strict=True):
        if member == "paths":
            outside = has and any(not any(below(one, path) for one in has) for path in wants)
        else:
            outside = has and not set(wants) <= set(has)
        if outside:
            return member
    return ""


def check_origin(narrowing: Narrowing, fields: Fields) -> None:
    """Raises Forbidden for a request that no listed page sends."""
    if narrowing.origins:
        sent = values(fields, b"origin")
        if len(sent) != 1 or sent[0].decode("latin-1") not in narrowing.origins:
            raise Forbidden(
                "This token is for pages of certain origins, and this call's Origin is none of "
                f"them; {_ASK} --origin ORIGIN"
            )


def check_call(narrowing: Narrowing, method: str, fields: Fields, target: Target) -> None:
    """Raises Forbidden for a call outside. Below a path prefix the path must read the same to
    every server, as below that of a backend."""
    check_origin(narrowing, fields)
    if narrowing.methods and method not in narrowing.methods:
        allowed = ", ".join(narrowing.methods)
        raise Forbidden(f"This token may not call with {method}, only with {allowed}.")
    if narrowing.hosts and target.host not in narrowing.hosts:
        raise Forbidden(f"This token may not call this host; {_ASK} --host HOST")
    if narrowing.paths and not _within(narrowing.paths, target.path):
        raise Forbidden(f"This token may not call this path; {_ASK} --path PATH")


def _within(prefixes: tuple[str, ...], path: str) -> bool:
    if "/" in prefixes:
        return True
    return path_is_plain(path) and any(below(prefix, path) for prefix in prefixes)


def _judged(url: str, expected: str = "") -> Target:
    try:
        return parse_destination(url)
    except RelayError as error:
        raise ValueError(expected or error.remark) from None
