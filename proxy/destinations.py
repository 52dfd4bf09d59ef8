"""URL to Target: the one strict parser of destinations. Pure."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from urllib.parse import unquote

import idna

from proxy import uris
from proxy.addresses import never_dialled
from proxy.errors import BadDestination
from vault import Binding

DEFAULT_PORTS = {"https": 443, "http": 80}
MAX_OCTETS = 8192
MAX_HOST = 253

_SHAPE = re.compile(r"(https?)://([^/?]*)(/[^?]*)?(?:\?(.*))?", re.IGNORECASE | re.ASCII)
_UNFIT = re.compile(r"[\x00-\x20\x7f\\#]")
_UNFIT_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Zs", "Zl", "Zp"})
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_PORT = re.compile(r"[1-9][0-9]{0,4}")
_BRACKETED = re.compile(r"\[([0-9A-Fa-f:.]+)\](?::(.*))?")
_CAPITAL_SHARP_S = "\N{LATIN CAPITAL LETTER SHARP S}"
_UNPLAIN = re.compile(r"%2F|%5C|%25|;|//", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Target:
    """A destination in canonical form.

    `scheme` is http or https; `host` lower-case ASCII without trailing dot, or an IP address
    without brackets; `path` starts with `/` and, like `query` (None where there is no `?`), keeps
    its octets.
    """

    scheme: str
    host: str
    port: int
    path: str
    query: str | None = None

    @property
    def authority(self) -> str:
        """The value of Host (RFC 9110 section 7.2): without the scheme's own port."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def origin_form(self) -> str:
        """Path and query as they stand in a request line (RFC 9112 section 3.2.1)."""
        return self.path if self.query is None else f"{self.path}?{self.query}"

    @property
    def url(self) -> str:
        """The whole URL."""
        return f"{self.scheme}://{self.authority}{self.origin_form}"


def parse_destination(url: str) -> Target:
    """A URL in canonical form, or BadDestination; `parse_destination(t.url) == t` for every result.

    Stricter than RFC 3986: what two parsers could read differently is refused, not repaired.
    """
    _check_characters(url)
    shape = _SHAPE.fullmatch(url)
    if shape is None:
        raise BadDestination(
            "The destination must be a whole URL that begins with https:// or http://."
        )
    scheme, authority, path, query = shape[1].lower(), shape[2], shape[3] or "/", shape[4]
    if not (path + (query or "")).isascii():
        raise BadDestination(
            "The destination's path and query must be ASCII: percent-encode what is not."
        )
    if found := uris.flaw(path, query or ""):
        raise BadDestination(f"The destination's path or query holds {found}.")
    host, port = _parse_authority(authority)
    target = Target(scheme, host, port or DEFAULT_PORTS[scheme], path, query)
    _check_length(target.url)
    return target


def parse_registration(url: str) -> Binding:
    """The place that an admin names: a URL without query whose path becomes the prefix.

    Raises BadDestination. See `path_is_plain` for what a prefix may not hold.
    """
    target = parse_destination(url)
    if target.query is not None:
        raise BadDestination("A registered place has no query: leave the ? and what follows away.")
    if not path_is_plain(target.path):
        raise BadDestination("A registered path must not hold %2F, %5C, %25, a semicolon or //.")
    return Binding(target.scheme, target.host, target.port, target.path)


def reachable(place: Binding) -> Binding:
    """The place itself: what would never be dialled is said when it is registered.

    Raises BadDestination.
    """
    if kind := never_dialled(place.host):
        raise BadDestination(
            f"Nothing is ever sent to this address ({kind}): "
            "register a public, private or loopback one."
        )
    return place


def path_is_plain(path: str) -> bool:
    """Whether every server reads the path's segments alike: no %2F, %5C, %25, `;` or `//` in it.

    Below a registered prefix only such paths are let through.
    """
    return _UNPLAIN.search(path) is None


def query_parameter(query: str | None, name: str) -> str | None:
    """The first value of a parameter, percent-decoded once (`+` stays a plus), or None.

    Names are compared decoded and case-sensitively. A bare name has the value "". Octets that are
    not UTF-8 come out as U+FFFD, so they never equal a token.
    """
    for parameter in (query or "").split("&"):
        key, _, value = parameter.partition("=")
        if unquote(key) == name:
            return unquote(value)
    return None


def without_parameters(query: str | None, names: Collection[str]) -> str | None:
    """The query without every parameter of these names, the others octet for octet as they were.

    Names are compared as in `query_parameter`. None where nothing is left that was there.
    """
    if query is None:
        return None
    parameters = query.split("&")
    kept = [each for each in parameters if unquote(each.partition("=")[0]) not in names]
    return "&".join(kept) if kept else None


def _check_characters(url: str) -> None:
    _check_length(url[: MAX_OCTETS + 1])
    if "\\" in url:
        raise BadDestination("The destination must not hold a backslash: write / instead.")
    if "#" in url:
        raise BadDestination(
            "The destination must not hold a #: leave a fragment away, write # as %23."
        )
    if _UNFIT.search(url) or not (
        url.isascii() or _UNFIT_CATEGORIES.isdisjoint(map(unicodedata.category, url))
    ):
        raise BadDestination(
            "The destination must not hold spaces, control or format characters: encode them."
        )
    _check_length(url)


def _check_length(url: str) -> None:
    if len(url.encode(errors="surrogatepass")) > MAX_OCTETS:
        raise BadDestination(
            f"The destination is longer than {MAX_OCTETS} octets: shorten the URL."
        )


def _parse_authority(authority: str) -> tuple[str, int | None]:
    if "@" in authority:
        raise BadDestination(
            "The destination must not hold a user name or password before its host."
        )
    if "%" in authority:
        raise BadDestination("The destination's host and port must not be percent-encoded.")
    if authority.startswith("["):
        return _parse_bracketed(authority)
    host, colon, port = authority.partition(":")
    return _parse_host(host), _parse_port(port) if colon else None


def _parse_bracketed(authority: str) -> tuple[str, int | None]:
    shape = _BRACKETED.fullmatch(authority)
    if shape is None:
        raise BadDestination(
            "The destination's IPv6 address must stand in brackets, without a zone."
        )
    try:
        address = IPv6Address(shape[1])
    except AddressValueError:
        raise BadDestination("The destination's host is not an IPv6 address.") from None
    # RFC 5952 section 5; spelled out here, because Python's own text of it changed in 3.13.
    mapped = address.ipv4_mapped
    host = address.compressed if mapped is None else f"::ffff:{mapped}"
    return host, None if shape[2] is None else _parse_port(shape[2])


def _parse_port(port: str) -> int:
    if _PORT.fullmatch(port) is None or int(port) > 65535:
        raise BadDestination(
            "The destination's port must be a number from 1 to 65535 without sign or leading zero."
        )
    return int(port)


def _parse_host(host: str) -> str:
    if len(host) <= MAX_HOST:
        host = host.lower() if host.isascii() else _to_ascii(host)
    if host.endswith("."):
        raise BadDestination("The destination's host must not end with a dot.")
    labels = host.split(".")
    if len(host) > MAX_HOST or not all(map(_LABEL.fullmatch, labels)):
        raise BadDestination("The destination's host is not a well-formed name.")
    if _NUMBER.fullmatch(labels[-1]):
        _check_ipv4(host)
    return host


def _check_ipv4(host: str) -> None:
    """A host that ends in a number is an address for some resolvers: only one spelling passes."""
    try:
        IPv4Address(host)
    except AddressValueError:
        raise BadDestination(
            "The destination's IPv4 address must be four decimal numbers without leading zeros."
        ) from None


def _to_ascii(host: str) -> str:
    """The A-labels of a name that is its own UTS 46 form (non-transitional) up to case and NFC.

    A name that UTS 46 maps to something else, or to plain ASCII (the Kelvin sign is a k), only
    looks like what it reaches. The capital sharp s is ß to some parsers and ss to older ones.
    """
    # Letter by letter, because lower() of a whole word turns a last sigma into its final form.
    plain = unicodedata.normalize("NFC", "".join(map(str.lower, host)))
    try:
        mapped = idna.uts46_remap(host, std3_rules=False, transitional=False)
        ascii_host = idna.encode(plain, strict=True).decode()
    except (idna.IDNAError, UnicodeError):
        ascii_host = mapped = ""
    if mapped != plain or plain.isascii() or _CAPITAL_SHARP_S in host:
        raise BadDestination(
            "The destination's international host is not in its plain form: write its xn-- form."
        )
    return ascii_host
