"""An issuer of sign-in tokens: keys of every algorithm, tokens signed with them, and a server."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from proxy.signin.jwt import encode
from tests.support.canaries import LEDGER
from tests.support.origin import Exchange, Origin, json_reply

RSA: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
CURVES: Final = {
    "ES256": ("P-256", ec.SECP256R1(), 32),
    "ES384": ("P-384", ec.SECP384R1(), 48),
    "ES512": ("P-521", ec.SECP521R1(), 66),
}
ALGORITHMS: Final = (*RSA, *CURVES, "EdDSA")
NOW: Final = 1_800_000_000


def number(value: int, length: int | None = None) -> str:
    """A number as JWK has it."""
    size = length or (value.bit_length() + 7) // 8
    return encode(value.to_bytes(size, "big")).decode()


@cache
def _private(alg: str, which: str) -> Any:
    """Made once in a run: RSA keys take their time. `which` tells several apart."""
    assert which
    if alg in CURVES:
        return ec.generate_private_key(CURVES[alg][1])
    if alg == "EdDSA":
        return ed25519.Ed25519PrivateKey.generate()
    return rsa.generate_private_key(65537, 2048)


@dataclass(frozen=True)
class Signer:
    """One private key, for one algorithm."""

    alg: str = "ES256"
    kid: str | None = "one"
    which: str = "a"

    @property
    def key(self) -> Any:
        return _private("RSA" if self.alg in RSA else self.alg, self.which)

    def jwk(self, **more: Any) -> dict[str, Any]:
        """The public half, as a set lists it."""
        named = {} if self.kid is None else {"kid": self.kid}
        return {**named, "use": "sig", "alg": self.alg, **self._parts(), **more}

    def _parts(self) -> dict[str, Any]:
        public = self.key.public_key()
        if self.alg in CURVES:
            name, _, length = CURVES[self.alg]
            at = public.public_numbers()
            return {"kty": "EC", "crv": name, "x": number(at.x, length), "y": number(at.y, length)}
        if self.alg == "EdDSA":
            octets = public.public_bytes_raw()
            return {"kty": "OKP", "crv": "Ed25519", "x": encode(octets).decode()}
        numbers = public.public_numbers()
        return {"kty": "RSA", "n": number(numbers.n), "e": number(numbers.e)}

    def sign(self, claims: Any, **header: Any) -> str:
        """A token; a member of the header that is None is left out."""
        named = {"alg": self.alg, "typ": "JWT", "kid": self.kid, **header}
        said = {name: part for name, part in named.items() if part is not None}
        signed = b".".join(encode(json.dumps(part).encode()) for part in (said, claims))
        return self.seal(signed)

    def seal(self, signed: bytes) -> str:
        """A token of header and claims that are encoded already."""
        text = b".".join((signed, encode(self._signature(signed)))).decode()
        LEDGER.token(text)
        return text

    def _signature(self, signed: bytes) -> bytes:
        if self.alg == "EdDSA":
            return bytes(self.key.sign(signed))
        hashing = {"256": hashes.SHA256(), "384": hashes.SHA384(), "512": hashes.SHA512()}
        chosen = hashing[self.alg[2:]]
        if self.alg in CURVES:
            length = CURVES[self.alg][2]
            r, s = decode_dss_signature(self.key.sign(signed, ec.ECDSA(chosen)))
            return r.to_bytes(length, "big") + s.to_bytes(length, "big")
        if self.alg.startswith("RS"):
            return bytes(self.key.sign(signed, padding.PKCS1v15(), chosen))
        pss = padding.PSS(padding.MGF1(chosen), padding.PSS.DIGEST_LENGTH)
        return bytes(self.key.sign(signed, pss, chosen))


def with_shared_secret(secret: bytes, claims: Any, alg: str = "HS256") -> str:
    """What an attacker makes who knows nothing but the public key."""
    header = {"alg": alg, "typ": "JWT", "kid": "one"}
    signed = b".".join(encode(json.dumps(part).encode()) for part in (header, claims))
    mac = hmac.digest(secret, signed, hashlib.sha256)
    return b".".join((signed, encode(mac))).decode()


def key_set(signers: Iterable[Signer]) -> dict[str, Any]:
    """A JWK Set."""
    return {"keys": [one.jwk() for one in signers]}


@dataclass
class Issuer:
    """A server that shows its keys, and signs in whoever a test wants. `down`: it answers 500."""

    signers: list[Signer] = field(default_factory=lambda: [Signer()])
    down: bool = False
    now: float = NOW
    extra: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.origin = Origin(self._answer)

    async def __aenter__(self) -> Issuer:
        await self.origin.__aenter__()
        return self

    async def __aexit__(self, *why: Any) -> None:
        await self.origin.__aexit__(*why)

    @property
    def url(self) -> str:
        return self.origin.url

    @property
    def asked(self) -> list[str]:
        """The paths that were asked for."""
        return [one.path for one in self.origin.requests]

    def claims(self, **other: Any) -> dict[str, Any]:
        """Good ones; a claim that is None is left out."""
        usual = {"iss": self.url, "aud": "keyrelay", "sub": "ann", "exp": self.now + 600}
        said = {**usual, "iat": self.now, **other}
        return {name: claim for name, claim in said.items() if claim is not None}

    def token(self, **other: Any) -> str:
        """A good one, or what `other` claims make of it."""
        return self.signers[0].sign(self.claims(**other))

    async def _answer(self, exchange: Exchange) -> None:
        if self.down:
            await exchange.send(json_reply({"error": "down"}, 500))
        elif exchange.request.path == "/.well-known/openid-configuration":
            keys = {"issuer": self.url, "jwks_uri": f"{self.url}/keys.json", **self.extra}
            await exchange.send(json_reply(keys))
        else:
            await exchange.send(json_reply(key_set(self.signers)))
