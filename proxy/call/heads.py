"""The typed values of control parameters, and what a client may have glued behind them. Pure."""

from __future__ import annotations

import re
import unicodedata

from proxy import uris
from proxy.call.shapes import ServiceNames
from proxy.errors import BadCall, UnknownService

SERVICE_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")

_SECONDS = re.compile(r"([0-9]{1,10})(?:\.[0-9]+)?")
_SWITCH = re.compile(r"true|false|1|0", re.IGNORECASE | re.ASCII)
_ENCODED = re.compile(r"https?(?::|%3A)%2F%2F[^/?]*(?=/)", re.IGNORECASE | re.ASCII)
_ORIGIN = re.compile(r"[^/?#]*//[^/?#]*")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_INVISIBLE = frozenset({"Cf", "Zs", "Zl", "Zp"})


def begins_tail(text: str, letters: bool) -> bool:
    """Whether what stands behind a head is a tail, or nothing.

    `letters`: below `/proxy/` exactly a client has moved the slash into the path, so that the tail
    begins with a letter.
    """
    glued = letters and text[:1].isalpha()
    return not text or glued or text.startswith(("/", "%2F", "%2f"))


def read_cache(text: str, letters: bool = False) -> tuple[int, str]:
    """Unix seconds, and the tail. A fraction is cut off. Raises BadCall."""
    match = _SECONDS.match(text)
    if match is None or not begins_tail(text[match.end() :], letters):
        raise BadCall(
            "cache must be a time in Unix seconds (1 to 10 digits): no milliseconds, signs, words.",
            param="cache",
        )
    return int(match[1]), text[match.end() :]


def read_invalidate(text: str, letters: bool = False, *, bare: bool = False) -> tuple[bool, str]:
    """Yes or no, and the tail, which is all there is behind a bare flag. Raises BadCall."""
    match = None if bare else _SWITCH.match(text)
    word = match[0] if match else ""
    if not begins_tail(text[len(word) :], letters):
        word = ""
    if not begins_tail(text[len(word) :], letters):
        raise BadCall("invalidate must be bare, empty, true, 1, false or 0.", param="invalidate")
    return word.lower() not in ("false", "0"), text[len(word) :]


def read_service(text: str, services: ServiceNames, letters: bool = False) -> tuple[str, str]:
    """The canonical name, and the tail. Raises BadCall and UnknownService."""
    match = SERVICE_NAME.match(text)
    name = _longest_known(text, services) if letters else ""
    name = name or (match[0] if match else "")
    rest = text[len(name) :]
    if not name or not begins_tail(rest, letters):
        raise BadCall(
            "service must be a name of at most 64 characters from a-z, 0-9, _ and -.",
            param="service",
        )
    canonical = services.canonical(name)
    if canonical is None:
        raise UnknownService(
            "No service has the name in service: ask for the list, or leave service away.",
            param="service",
        )
    return canonical, rest


def _longest_known(text: str, services: ServiceNames) -> str:
    """The longest name that `text` begins with and that leaves a tail or nothing."""
    fitting = (
        name
        for name in services.names
        if text.startswith(name) and begins_tail(text[len(name) :], letters=True)
    )
    return max(fitting, key=len, default="")


def split_encoded(text: str) -> tuple[str, str]:
    """A wholly encoded `server`, and the raw path that a client glued behind it, if it did."""
    match = _ENCODED.match(text)
    return (text[: match.end()], text[match.end() :]) if match else (text, "")


def read_server(text: str) -> str:
    """The URL in a `server`, decoded once. Raises BadCall.

    A space, and in its query every character outside ASCII, is encoded again, so that a `server`
    that was written unencoded, but with encoded values of its own, still works. In its path the
    characters that nobody can see are refused.
    """
    if not text:
        raise BadCall("server is empty: give it the whole URL to call.", param="server")
    url = decode(text)
    match = _ORIGIN.match(url)
    start = match.end() if match else 0
    path, mark, query = url[start:].partition("?")
    if any(unicodedata.category(character) in _INVISIBLE for character in path if character != " "):
        raise BadCall(
            "The path in server holds characters that can't be seen: percent-encode server.",
            param="server",
        )
    return url[:start] + uris.encode(path + mark + query)


def decode(text: str) -> str:
    """Percent-decoded once, without control characters. Raises BadCall."""
    try:
        decoded = uris.decode(text)
    except UnicodeDecodeError:
        raise BadCall("The call holds percent-encoded octets that are not UTF-8.") from None
    if _CONTROL.search(decoded):
        raise BadCall("The call holds an encoded control character: leave it away.")
    return decoded
