"""What holds on httpcore holds for the wire: test_tls, run over the wire."""

import pytest

from proxy.upstream.wire.transport import WireTransport
from tests.proxy.upstream.test_tls import *  # noqa: F403


@pytest.fixture(autouse=True)
def over_the_wire(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.support.outbound.Transport", WireTransport)
