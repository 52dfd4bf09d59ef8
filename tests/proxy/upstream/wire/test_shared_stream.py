"""What holds on httpcore holds for the wire: test_stream, run over the wire."""

import pytest

from proxy.upstream.wire.transport import WireTransport
from tests.proxy.upstream.test_stream import *  # noqa: F403

# These look inside httpcore; the wire has tests of its own for the same rules.
del test_no_connection_is_used_twice_where_surplus_cannot_be_seen  # noqa: F821
del test_what_comes_just_before_the_first_octet_is_noticed  # noqa: F821


@pytest.fixture(autouse=True)
def over_the_wire(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.support.outbound.Transport", WireTransport)
