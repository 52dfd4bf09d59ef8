"""The certificate that callers are shown, and its key: read at the start and when they change."""

from __future__ import annotations

import logging
import ssl
from pathlib import Path
from typing import Final, NamedTuple

_PROTOCOLS: Final = ["http/1.1"]

_log = logging.getLogger("keyrelay.tls")

State = tuple[tuple[int, int, int] | None, ...]


class CertificateError(Exception):
    """One sentence, with the file in it and without anything that stands in the file."""


class Pair(NamedTuple):
    """Two files in PEM: the certificate with those that lead to its authority, and its key."""

    chain: Path
    key: Path


class Certificate:
    """What new connections are agreed on with: `context`, always that of a whole pair."""

    def __init__(self, pair: Pair) -> None:
        self._pair = pair
        self._loaded = self._before = self._state()
        self.context = load_context(pair)

    def look(self) -> None:
        """Reads the files again if they are others than those that were read last, and the same as
        at the last look: both are to be there."""
        state = self._state()
        settled, self._before = state == self._before, state
        if settled and state != self._loaded:
            self.renew()

    def renew(self) -> None:
        """Reads the files again. Connections that are there go on as they were agreed."""
        self._loaded = self._before = self._state()
        try:
            self.context = load_context(self._pair)
        except CertificateError as error:
            _log.error("certificate not taken up, the one before stays: %s", error)
        else:
            _log.info("certificate taken up: %s", self._pair.chain)

    def _state(self) -> State:
        return tuple(_state(path) for path in self._pair)


def load_context(pair: Pair) -> ssl.SSLContext:
    """TLS 1.2 or newer with this certificate; raises CertificateError."""
    if _certified(pair.chain) != _public_key(pair.key):
        raise CertificateError(f"{pair.key} is not the key of the certificate in {pair.chain}")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(_PROTOCOLS)
    try:
        context.load_cert_chain(pair.chain, pair.key)
    except (ssl.SSLError, OSError):
        text = f"{pair.chain}: TLS does not take this certificate with its key"
        raise CertificateError(text) from None
    return context


def _certified(path: Path) -> object:
    from cryptography.x509 import load_pem_x509_certificates  # noqa: PLC0415 - only with TLS

    try:
        return load_pem_x509_certificates(_read(path))[0].public_key()
    except ValueError:
        raise CertificateError(f"{path}: expected a certificate in PEM") from None


def _public_key(path: Path) -> object:
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415
    from cryptography.hazmat.primitives.serialization import (  # noqa: PLC0415
        load_pem_private_key,
    )

    try:
        return load_pem_private_key(_read(path), None).public_key()
    except TypeError:
        text = f"{path}: the key has a passphrase, and nobody is there to type it: store it without"
        raise CertificateError(text) from None
    except (ValueError, UnsupportedAlgorithm):
        raise CertificateError(f"{path}: expected a private key in PEM") from None


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        reason = (error.strerror or type(error).__name__).lower()
        raise CertificateError(f"{path}: {reason}") from None


def _state(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
