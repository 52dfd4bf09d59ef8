"""What a target begins with: the cases found before, kept in files, and the suite's vectors."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import yaml

_HERE: Final = Path(__file__).parent
FOLDER: Final = _HERE / "corpus"
"""One folder per target, one file per case; what the fuzzer finds is put here."""
_FIELDS: Final = (
    "connection: content-length: content-type: text/html via: 1.1 kr-fuzz authorization: x-api-key:"
    " x_key cookie: set-cookie: proxy-authorization: x-forwarded-for: x-request-id: traceparent:"
    " transfer-encoding: access-control-allow-origin: content-security-policy: upgrade: kr_"
)
_WORDS: Final = {
    "call": "/proxy? server= service= cache= invalidate /- %2F %3F %26 & https:// openai 5",
    "destination": "https:// http:// [::ffff: 1.2.3.4 xn-- @ : %2e %2F %5C . ? # \\ 。 ẞ ß １",
    "familiar": "GET POST HTTP/1.1 Host: Content-Length: Transfer-Encoding: chunked Connection:",
    "fields": _FIELDS,
    "header": _FIELDS,
    "jwks": '"keys" "kty" "RSA" "EC" "OKP" "crv" "P-256" "Ed25519" "kid" "x" "y" "n" "e" "d" [ ]',
    "jwt": '"alg" "kid" "typ" "JWT" "crit" "jku" "iss" "aud" "exp" "nbf" "sub" eyJ . \\n 1e999',
    "limit": "/ per = second minute hour day week month s ms 5 openai KiB MiB GB kB 1e9 ٣",
    "token": "kr_000000000000_",
    "uri": "%2e %2E %2F %5C %00 %0a %c2%85 %25 . .. / \\ ?",
}
_VECTORS: Final = {"call": ("calls.yaml", "target"), "destination": ("destinations.yaml", "url")}


def cases(target: str) -> dict[str, bytes]:
    """The kept cases by the name of their file."""
    return {path.name: path.read_bytes() for path in sorted((FOLDER / target).iterdir())}


def seeds(target: str) -> Iterator[bytes]:
    """Every kept case, and the vectors that the target has."""
    yield from cases(target).values()
    for vector in _vectors(target):
        yield vector.encode(errors="replace")


def words(target: str) -> list[str]:
    """What inputs are made of more often than chance would."""
    if target != "config":
        return _WORDS.get(target, "").split()
    example = (_HERE.parent.parent / "keys.example.yaml").read_text()
    return sorted({f"{word}: " for word in re.findall(r"\b([a-z_]+):", example)})


def _vectors(target: str) -> list[str]:
    if target not in _VECTORS:
        return []
    name, member = _VECTORS[target]
    rows: list[dict[str, Any]] = yaml.safe_load((_HERE.parent / "vectors" / name).read_text())
    return [row[member] for row in rows]
