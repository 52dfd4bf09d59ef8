"""What is fuzzed: octets in, and a failed assertion or foreign exception where a rule is broken.

A target knows rules that hold for every input, told by a second way to the same result: what was
read is written down and read again, or another reading of the same octets says the same.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import itertools
import json
import re
import tempfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final
from urllib.parse import quote, unquote, unquote_to_bytes

from proxy import uris
from proxy.call import Directions, parse_directions
from proxy.config import ConfigError, load_config
from proxy.config.signin import IssuerEntry
from proxy.config.units import parse_octets, parse_seconds
from proxy.destinations import (
    parse_destination,
    parse_registration,
    query_parameter,
    without_parameters,
)
from proxy.errors import BadDestination, RelayError
from proxy.familiar import Familiar
from proxy.fields import add_via, request_fields, response_fields, safety_fields, via_count
from proxy.header import look_over, request_id
from proxy.limits.grammar import in_order, parse_limit
from proxy.messages import Fields
from proxy.signin.claims import Wrong, judge
from proxy.signin.jwt import Jwt, Unreadable
from proxy.signin.jwt import encode as encoded
from proxy.signin.jwt import parse as parse_jwt
from proxy.signin.keyset import ALGORITHMS, parse_keys, verified
from tests.fuzz.readers import compare
from tests.proxy.test_call import SERVICES
from tests.proxy.test_shortcut import Echo, connection, cut, heard
from vault import Unopenable, tokens
from vault.sealing import DataKey, KeyedSealer, encode, key_id_of
from vault.tokens import Malformed


def call(octets: bytes) -> None:
    """A request target: refused with 400 or 404, or read; and what was read can be said in the
    plainest form, wholly encoded, and is read the same there."""
    try:
        read = parse_directions(octets, SERVICES)
    except RelayError as refusal:
        assert refusal.status in (400, 404), refusal
        return
    assert read.service is None or read.service in SERVICES.names
    assert read.cache is None or 0 <= read.cache < 10**10
    with suppress(BadDestination):
        parse_destination(read.url)
        assert parse_directions(_plainest(read).encode(), SERVICES) == read


def _plainest(read: Directions) -> str:
    parts = [f"server={quote(read.url, safe='')}"]
    parts += [f"service={read.service}"] if read.service else []
    parts += [f"cache={read.cache}"] if read.cache is not None else []
    return "/proxy?" + "&".join([*parts, *(["invalidate"] if read.invalidate else [])])


def destination(octets: bytes) -> None:
    """A URL: refused, or in one canonical form, which others read alike."""
    url = octets.decode(errors="replace")
    target, _, differing = compare(url)
    assert not differing, differing
    if target is None:
        return
    assert parse_destination(target.url) == target
    assert re.fullmatch(r"https?://[!-~]+", target.url, re.ASCII)
    assert len(target.url) <= 8192
    left = without_parameters(target.query, {"key"})
    assert query_parameter(left, "key") is None
    with suppress(BadDestination):
        place = parse_registration(target.url)
        inside = f"{target.path}x" if target.path.endswith("/") else target.path
        assert place.covers(target.scheme, target.host, target.port, inside)
        assert parse_registration(str(place)) == place


def uri(octets: bytes) -> None:
    """A path and a query: what is called sound has no dot segment and no control character once it
    is decoded, whatever one takes for a slash."""
    path, _, query = octets.decode(errors="replace").partition("?")
    encoded = uris.encode(path)
    assert re.fullmatch(r"[!-~]*", encoded, re.ASCII)
    assert uris.encode(encoded) == encoded
    assert unquote_to_bytes(encoded) == unquote_to_bytes(path)
    with suppress(UnicodeDecodeError):
        assert uris.decode(encoded) == unquote(path, errors="strict")
    if uris.flaw(path, query) is None:
        assert {".", ".."}.isdisjoint(re.split(r"[/\\]", unquote(path)))
        assert path.count("%") == len(re.findall("%[0-9A-Fa-f]{2}", path))
        assert _controls(path) == _controls(unquote(path))
        assert query.count("\0") == unquote(query).count("\0")


def _controls(text: str) -> int:
    return len(re.findall(r"[\x00-\x1f\x7f-\x9f]", text))


_FOR_US: Final = (b"cookie", b"host", b"content-length", b"origin", b"x-real-ip")
_ON_OUR_ORIGIN: Final = (b"set-cookie", b"alt-svc", b"refresh", b"www-authenticate", b"nel")
_CREDENTIALS: Final = frozenset({b"authorization", b"x-api-key", b"x_key"})


def _fields(octets: bytes) -> Fields:
    """Lines as `name:value`, names as the wire's parser gives them: lower case, no white space."""
    lines = [line.partition(b":") for line in octets.split(b"\n")]
    return tuple(
        (name.lower(), value.strip(b" \t").translate(None, b"\r\0"))
        for name, _, value in lines
        if re.fullmatch(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name)
    )


def fields(octets: bytes) -> None:
    """Header fields, both ways: only some of what came, in order, and nothing that acts for us."""
    came = _fields(octets)
    named = {
        one.strip(b" \t").lower() for n, v in came if n == b"connection" for one in v.split(b",")
    }
    for passed, acting, prefixes in (
        (request_fields(came, _CREDENTIALS), _FOR_US, (b"proxy-", b"x-forwarded", b"x-relay-")),
        (response_fields(came), _ON_OUR_ORIGIN, (b"proxy-", b"access-control-", b"x-relay-")),
    ):
        rest, names = iter(came), {name for name, _ in passed}
        assert all(field in rest for field in passed)
        assert not names & (named | {b"connection", b"transfer-encoding", b"upgrade", b"te"})
        assert not any(name.startswith((*prefixes, b"sec-")) for name in names)
        assert names.isdisjoint(acting)
    sent = {name for name, _ in request_fields(came, _CREDENTIALS)}
    assert not any(name in _CREDENTIALS or b"_" in name for name in sent)
    assert (b"x-content-type-options", b"nosniff") in safety_fields(came)
    added = add_via(came, b"kr-fuzz")
    assert via_count(added, b"kr-fuzz") == via_count(came, b"kr-fuzz") + 1


def header(octets: bytes) -> None:
    """One pass over a header: two have one hash only where they say the same, and no id that is
    echoed may break out of its line or hold a token."""
    halves = [_sized(half) for half in octets.split(b"\n\n", 1)]
    seen = [look_over("POST", b"/x", one) for one in halves]
    for one, given in zip(seen, halves, strict=True):
        assert one.id == "" or re.fullmatch(r"[A-Za-z0-9._:-]{1,128}", one.id)
        assert "kr_" not in one.id
        assert re.fullmatch(r"[A-Za-z0-9._:-]{1,128}", request_id(given))
        assert set(one.fields) <= set(given)
        assert one.hash or sum(len(n + v) for n, v in given) > 4000
    if len(seen) == 2 and seen[0].hash:
        alike = [[field for field in one.fields if field[0] != b"content-length"] for one in seen]
        assert (seen[0].hash == seen[1].hash) is (alike[0] == alike[1])


def _sized(octets: bytes) -> Fields:
    """The fields of a header that the wire's parser let through: lengths are numbers."""
    number = re.compile(rb"[0-9]{1,15}")
    return tuple(
        field
        for field in _fields(octets)
        if field[0] != b"content-length" or number.fullmatch(field[1])
    )


def familiar(octets: bytes) -> None:
    """Octets on one connection: read as the parser reads them, whatever headers were read before.

    The first two say where they are cut into two pieces.
    """
    asyncio.run(_compare_with_parser(octets[2:], int.from_bytes(octets[:2], "big")))


async def _compare_with_parser(octets: bytes, place: int) -> None:
    pieces = cut(octets, [place])
    expected = await heard(app := Echo(), connection(app, None), pieces)
    known = Familiar()
    for _ in range(2):
        await heard(app := Echo(), connection(app, known), [octets])
    found = await heard(app := Echo(), connection(app, known), pieces)
    assert found == expected


def token(octets: bytes) -> None:
    """A credential: a token only with the right shape and checksum, and told apart from all else;
    what was parsed doesn't show the secret."""
    parsed = tokens.parse(octets)
    shape = re.fullmatch(rb"kr_([0-9A-Za-z]{12})_[0-9A-Za-z]{38}", octets)
    if isinstance(parsed, Malformed):
        assert (parsed is Malformed.TYPO) is octets.startswith(b"kr_")
        assert shape is None or octets[-6:] != _base62(zlib.crc32(octets[:-6]))
        return
    assert shape is not None
    assert parsed.id.encode() == shape[1]
    assert parsed.digest == hashlib.sha256(octets).digest()
    assert octets[-6:] == _base62(zlib.crc32(octets[:-6]))
    assert octets[16:48].decode() not in repr(parsed)


def jwt(octets: bytes) -> None:
    """A sign-in token: refused, or three parts in their one spelling, which say what was read; no
    key and no place of keys is taken from it. As it stands, and with its parts encoded first."""
    for text in (octets, b".".join(map(encoded, octets.split(b"\n")))):
        with suppress(Unreadable):
            read = parse_jwt(text)
            header, claims, signature = (
                base64.urlsafe_b64decode(x + b"==") for x in text.split(b".")
            )
            said = json.loads(header)
            assert (said["alg"], said.get("kid"), json.loads(claims)) == read[:3]
            assert (read.signed + b"." + encoded(read.signature), read.signature) == (
                text,
                signature,
            )
            assert {"jwk", "jku", "x5u", "x5c", "crit", "zip"}.isdisjoint(said)
            with suppress(Wrong):
                holder = judge(read.claims, _ENTRY, 1_800_000_000)
                assert read.claims["iss"] == _ENTRY.issuer and "keyrelay" in str(read.claims["aud"])
                assert 1_800_000_000 < holder.good_until <= read.claims["exp"] + 30


_ENTRY: Final = IssuerEntry(name="login", issuer="https://a.example", audience=("keyrelay",))


def jwks(octets: bytes) -> None:
    """An issuer's keys: refused as a whole, or those that can be used; none is private, each is
    for algorithms of its own kind, and nothing that anybody makes up is a signature of it."""
    try:
        found = parse_keys(octets)
    except Unreadable:
        return
    listed = json.loads(octets)["keys"]
    assert len(found) <= len(listed)
    for alg, entry in itertools.product(ALGORITHMS, listed):
        kid = entry.get("kid") if isinstance(entry, dict) else None
        key = found.find(alg, kid) if isinstance(kid, str) else None
        if key is not None:
            assert (key.kind, key.alg in (None, alg)) == (ALGORITHMS[alg].kind, True)
            assert not verified(Jwt(alg, kid, {}, octets[:50], octets[-64:]), key)


def _base62(number: int) -> bytes:
    digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    return "".join(digits[number // 62**place % 62] for place in range(5, -1, -1)).encode()


_OLD: Final = DataKey(b"old  key", "keys", bytes(32))
_NEW: Final = DataKey(b"new  key", "keys", bytes([1]) * 32)
_OTHER: Final = DataKey(b"others k", "cache-bodies", bytes([2]) * 32)
_SEALER: Final = KeyedSealer(_NEW, {one.id: one for one in (_OLD, _NEW, _OTHER)})


def sealed(octets: bytes) -> None:
    """A sealed row: made up ones never open; a true one opens as it was, and after no change.

    The first octets say how a true one is changed, the others are what is sealed, and its place.
    """
    for blob in (octets, b"\x01" + _OLD.id + octets, b"\x01" + _OTHER.id + octets):
        _does_not_open(blob, b"row")
    aad, _, plaintext = octets[4:].partition(b"\n")
    blob = _OLD.seal(plaintext, aad)
    assert (key_id_of(blob), _SEALER.open(blob, aad)) == (_OLD.id, plaintext)
    place = int.from_bytes(octets[:2], "big") % len(blob)
    flip, end = octets[2:3] or b"\1", octets[3:4]
    changed = blob[:place] + bytes([blob[place] ^ (flip[0] or 1)]) + blob[place + 1 :]
    for wrong in (changed, blob[:place], blob + (end or b"\0"), blob[place:]):
        if wrong != blob:
            _does_not_open(wrong, aad)
    _does_not_open(blob, aad + b"\0")
    parts = octets.split(b"\n")
    joined = b"".join(parts)
    assert (encode(*parts) == encode(joined)) is (parts == [joined])


def _does_not_open(blob: bytes, aad: bytes) -> None:
    try:
        _SEALER.open(blob, aad)
    except Unopenable:
        return
    raise AssertionError("a row opened that nobody sealed")


_FOLDER: Final = Path(tempfile.gettempdir())
_ENVIRON: Final = {"KEY": "sk-canary-0123456789"}


def config(octets: bytes) -> None:
    """A configuration file: settings, or mistakes, each of one line that begins with the file; no
    other error, never a key that the environment holds."""
    with tempfile.NamedTemporaryFile(suffix=".yaml", dir=_FOLDER) as file:
        file.write(octets)
        file.flush()
        try:
            read = load_config(Path(file.name), _ENVIRON)
        except ConfigError as error:
            assert error.mistakes
            for mistake in error.mistakes:
                assert mistake.startswith(f"{file.name}: "), mistake
                assert _ENVIRON["KEY"] not in mistake
            return
    assert _ENVIRON["KEY"] not in repr(read)


def limit(octets: bytes) -> None:
    """Limits, durations and sizes: an amount with one canonical text, or a sentence of what was
    expected."""
    texts = octets.decode(errors="replace").split("\n")
    limits = []
    for text in texts:
        with _Refusal():
            limits.append(parse_limit(text))
            assert parse_limit(str(limits[-1])) == limits[-1]
        with _Refusal():
            assert 0 <= parse_seconds(text) < float("inf")
        with _Refusal():
            assert 0 <= parse_octets(text) < float("inf")
    with suppress(ValueError):
        ordered = in_order(limits)
        assert in_order(reversed(limits)) == ordered
        services = [(one.service or "", one.rate.seconds) for one in ordered]
        assert all(one < other for one, other in itertools.pairwise(services))


class _Refusal:
    """Whatever is refused is refused with a sentence."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: object, trace: object) -> bool:
        if kind is ValueError:
            assert str(error).startswith("expected"), error
        return kind is ValueError


TARGETS: Final[dict[str, Callable[[bytes], None]]] = {
    "call": call,
    "config": config,
    "destination": destination,
    "familiar": familiar,
    "fields": fields,
    "header": header,
    "jwks": jwks,
    "jwt": jwt,
    "limit": limit,
    "sealed": sealed,
    "token": token,
    "uri": uri,
}
