"""The certificate and its key: a whole pair is taken up, or none."""

from __future__ import annotations

import logging
import ssl
from pathlib import Path

import pytest

from proxy.certificate import Certificate, CertificateError, Pair, load_context
from tests.support.certificates import write_pair


def refused(pair: Pair) -> str:
    with pytest.raises(CertificateError) as caught:
        load_context(pair)
    [sentence] = str(caught.value).splitlines()
    return sentence


def test_nothing_older_than_tls_1_2_is_spoken(tmp_path: Path) -> None:
    """Without compression and renegotiation."""
    context = load_context(write_pair(tmp_path))
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert context.options & ssl.OP_NO_COMPRESSION
    assert context.options & ssl.OP_NO_RENEGOTIATION


def test_wrong_files_are_told_in_one_sentence(tmp_path: Path) -> None:
    """With the file, and nothing that stands in it."""
    pair, other = write_pair(tmp_path), write_pair(tmp_path, "other")
    locked = write_pair(tmp_path, "locked", b"passphrase")
    gone, folder, junk = tmp_path / "gone", tmp_path / "folder", tmp_path / "junk"
    folder.mkdir()
    junk.write_text("-----BEGIN CERTIFICATE-----\ncanary\n-----END CERTIFICATE-----\n")
    for wrong, sentence in (
        (Pair(gone, pair.key), f"{gone}: no such file or directory"),
        (Pair(pair.chain, gone), f"{gone}: no such file or directory"),
        (Pair(folder, pair.key), f"{folder}: is a directory"),
        (Pair(junk, pair.key), f"{junk}: expected a certificate in PEM"),
        (Pair(pair.key, pair.chain), f"{pair.key}: expected a certificate in PEM"),
        (Pair(pair.chain, pair.chain), f"{pair.chain}: expected a private key in PEM"),
        (Pair(pair.chain, other.key), f"{other.key} is not the key of the certificate in "),
        (locked, f"{locked.key}: the key has a passphrase, and nobody is there to type it"),
    ):
        assert refused(wrong).startswith(sentence)


def test_a_changed_pair_is_taken_up_once_it_has_settled(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Half of a pair is a mistake in the log, and the one before stays."""
    caplog.set_level(logging.INFO, "keyrelay.tls")
    pair = write_pair(tmp_path)
    certificate = Certificate(pair)
    first = certificate.context
    certificate.look()
    other = write_pair(tmp_path, "other")
    pair.chain.write_bytes(other.chain.read_bytes())
    certificate.look()
    assert (certificate.context, caplog.messages) == (first, [])
    certificate.look()
    assert certificate.context is first
    pair.key.write_bytes(other.key.read_bytes())
    certificate.look()
    certificate.look()
    second = certificate.context
    assert second is not first
    for _ in range(3):
        certificate.look()
    assert certificate.context is second
    pair.chain.unlink()
    certificate.look()
    certificate.look()
    assert certificate.context is second
    assert caplog.messages == [
        f"certificate not taken up, the one before stays: {pair.key} is not the key of the "
        f"certificate in {pair.chain}",
        f"certificate taken up: {pair.chain}",
        f"certificate not taken up, the one before stays: {pair.chain}: no such file or directory",
    ]


def test_what_tls_itself_does_not_take_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key that is too small for its rules, and the like."""

    def refuse(*_: object) -> None:
        raise ssl.SSLError("ee key too small: canary")

    pair = write_pair(tmp_path)
    monkeypatch.setattr(ssl.SSLContext, "load_cert_chain", refuse)
    assert refused(pair) == f"{pair.chain}: TLS does not take this certificate with its key"
