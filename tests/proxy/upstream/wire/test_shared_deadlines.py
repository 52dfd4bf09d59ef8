"""What holds on httpcore holds on the wire: test_deadlines, run over it."""

import pytest

from proxy.upstream.wire.transport import WireTransport
from tests.proxy.upstream.test_deadlines import *  # noqa: F403


@pytest.fixture(autouse=True)
def over_the_wire(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.support.outbound.Transport", WireTransport)
