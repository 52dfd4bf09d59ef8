"""An issuer's public keys (RFC 7517), and whether a signature is of one of them (RFC 7518, 8037).

An algorithm goes with one kind of key alone, and a key is used for nothing but what it says it is
for: so no public key is ever taken for a shared secret (RFC 8725 sections 2.1 and 3.1).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from hashlib import sha256
from typing import Any, Final, NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from proxy.signin.jwt import LONGEST_NAME, Jwt, Unreadable, decode, read_object

RSA_BITS: Final = range(2048, 8193)
LARGEST_EXPONENT: Final = 2**32
_PRIVATE: Final = frozenset({"d", "k", "p", "q", "dp", "dq", "qi", "oth"})

Public = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey
Verify = Callable[[Any, bytes, bytes], None]


class Key(NamedTuple):
    """One public key. `kind`: RSA, or its curve; `alg`: the one algorithm that it is for, where it
    says so; `mark`: a hash of all of it."""

    kid: str | None
    kind: str
    alg: str | None
    public: Public
    mark: bytes


class KeySet:
    """The keys of one answer; those that are of no use here are not in it."""

    def __init__(self, keys: Sequence[Key]) -> None:
        self._keys: dict[str | None, list[Key]] = {}
        for key in keys:
            self._keys.setdefault(key.kid, []).append(key)
        self._all = list(keys)
        self.marks = frozenset(key.mark for key in keys)

    def __len__(self) -> int:
        return len(self._all)

    def find(self, alg: str, kid: str | None) -> Key | None:
        """The key that a token names; one that names none fits where there is a single one."""
        kind = ALGORITHMS[alg].kind
        named = self._all if kid is None else self._keys.get(kid, ())
        fitting = [one for one in named if one.kind == kind and one.alg in (None, alg)]
        return fitting[0] if len(fitting) == 1 else None


def parse_keys(octets: bytes) -> KeySet:
    """The JWK Set of an answer; raises Unreadable. Takes its time."""
    keys = read_object(octets).get("keys")
    if not isinstance(keys, list):
        raise Unreadable("no JWK Set: it has no list of keys")
    return KeySet(list(_usable(keys)))


def verified(token: Jwt, key: Key) -> bool:
    """Whether the signature is of this key; `find` has seen to it that the two fit."""
    try:
        ALGORITHMS[token.alg].verify(key.public, token.signature, token.signed)
    except InvalidSignature:
        return False
    return True


def _usable(entries: Sequence[object]) -> Iterator[Key]:
    """What a set has beside is passed over (RFC 7517 section 5)."""
    for entry in entries:
        with suppress(ValueError):  # also what the library says of a point that is on no curve
            yield _key(entry)


def _key(entry: object) -> Key:
    """A public key for signatures; raises ValueError."""
    if not isinstance(entry, dict) or not _PRIVATE.isdisjoint(entry):
        raise Unreadable("no public key")
    kid, alg, operations = entry.get("kid"), entry.get("alg"), entry.get("key_ops", ["verify"])
    if entry.get("use", "sig") != "sig" or not (
        isinstance(operations, list) and "verify" in operations
    ):
        raise Unreadable("a key for something else")
    if kid is not None and not (isinstance(kid, str) and len(kid) <= LONGEST_NAME):
        raise Unreadable("a key without a name")
    if alg is not None and not isinstance(alg, str):
        raise Unreadable("a key without an algorithm")
    kind, public, material = _read(entry)
    mark = sha256(repr((kid, kind, alg, material)).encode("utf-8", "replace")).digest()
    return Key(kid, kind, alg, public, mark)


def _octets(entry: Mapping[str, Any], name: str, length: int | None = None) -> bytes:
    said = entry.get(name)
    if not isinstance(said, str):
        raise Unreadable("a key with a part missing")
    octets = decode(said)
    if length is not None and len(octets) != length:
        raise Unreadable("a key with a part of another length")
    return octets


_Read = tuple[str, Public, tuple[bytes, ...]]


def _rsa(entry: Mapping[str, Any]) -> _Read:
    parts = _octets(entry, "n"), _octets(entry, "e")
    modulus, exponent = (int.from_bytes(part, "big") for part in parts)
    if modulus.bit_length() not in RSA_BITS or exponent > LARGEST_EXPONENT:
        raise Unreadable("a key too small, or too large to be used with each call")
    return "RSA", rsa.RSAPublicNumbers(exponent, modulus).public_key(), parts


_CURVES: Final[Mapping[str, tuple[ec.EllipticCurve, int]]] = {
    "P-256": (ec.SECP256R1(), 32),
    "P-384": (ec.SECP384R1(), 48),
    "P-521": (ec.SECP521R1(), 66),
}


def _on_curve(entry: Mapping[str, Any]) -> _Read:
    name = entry.get("crv")
    if not isinstance(name, str) or name not in _CURVES:
        raise Unreadable("a key on another curve")
    curve, length = _CURVES[name]
    parts = _octets(entry, "x", length), _octets(entry, "y", length)
    x, y = (int.from_bytes(part, "big") for part in parts)
    return name, ec.EllipticCurvePublicNumbers(x, y, curve).public_key(), parts


def _edwards(entry: Mapping[str, Any]) -> _Read:
    if entry.get("crv") != "Ed25519":
        raise Unreadable("a key on another curve")
    part = _octets(entry, "x", 32)
    return "Ed25519", ed25519.Ed25519PublicKey.from_public_bytes(part), (part,)


def _read(entry: Mapping[str, Any]) -> _Read:
    match entry.get("kty"):
        case "RSA":
            return _rsa(entry)
        case "EC":
            return _on_curve(entry)
        case "OKP":
            return _edwards(entry)
    raise Unreadable("a key of another kind")


class Algorithm(NamedTuple):
    """The kind of key that it goes with, and the check, which raises InvalidSignature."""

    kind: str
    verify: Verify


def _pkcs1(hashing: hashes.HashAlgorithm) -> Algorithm:
    def verify(key: rsa.RSAPublicKey, signature: bytes, signed: bytes) -> None:
        key.verify(signature, signed, padding.PKCS1v15(), hashing)

    return Algorithm("RSA", verify)


def _pss(hashing: hashes.HashAlgorithm) -> Algorithm:
    """RFC 7518 section 3.5: the salt is as long as the hash."""
    scheme = padding.PSS(padding.MGF1(hashing), hashing.digest_size)

    def verify(key: rsa.RSAPublicKey, signature: bytes, signed: bytes) -> None:
        key.verify(signature, signed, scheme, hashing)

    return Algorithm("RSA", verify)


def _ecdsa(kind: str, hashing: hashes.HashAlgorithm) -> Algorithm:
    """RFC 7518 section 3.4: both numbers one behind the other, each at its full length."""
    length = _CURVES[kind][1]

    def verify(key: ec.EllipticCurvePublicKey, signature: bytes, signed: bytes) -> None:
        if len(signature) != 2 * length:
            raise InvalidSignature
        r, s = (int.from_bytes(half, "big") for half in (signature[:length], signature[length:]))
        key.verify(encode_dss_signature(r, s), signed, ec.ECDSA(hashing))

    return Algorithm(kind, verify)


def _eddsa(key: ed25519.Ed25519PublicKey, signature: bytes, signed: bytes) -> None:
    key.verify(signature, signed)


ALGORITHMS: Final[Mapping[str, Algorithm]] = {
    "RS256": _pkcs1(hashes.SHA256()),
    "RS384": _pkcs1(hashes.SHA384()),
    "RS512": _pkcs1(hashes.SHA512()),
    "PS256": _pss(hashes.SHA256()),
    "PS384": _pss(hashes.SHA384()),
    "PS512": _pss(hashes.SHA512()),
    "ES256": _ecdsa("P-256", hashes.SHA256()),
    "ES384": _ecdsa("P-384", hashes.SHA384()),
    "ES512": _ecdsa("P-521", hashes.SHA512()),
    "EdDSA": Algorithm("Ed25519", _eddsa),
}
"""None of them works with a shared secret, and `none` is none of them."""
