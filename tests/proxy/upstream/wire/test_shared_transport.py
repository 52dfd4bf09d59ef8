"""What holds on httpcore holds on the wire: test_transport, run over it."""

import pytest

from proxy.upstream.wire.transport import WireTransport
from tests.proxy.upstream.test_transport import *  # noqa: F403

# These look inside httpcore, or see a request begin that the wire does not begin at all.
del test_a_call_given_up_at_any_moment_leaves_its_place  # noqa: F821
del test_a_call_given_up_when_its_turn_comes_leaves_it_to_the_next  # noqa: F821
del test_a_hang_up_at_the_end_of_an_answer_loses_no_connection  # noqa: F821
del test_a_body_of_another_length_than_declared_breaks_the_request  # noqa: F821


@pytest.fixture(autouse=True)
def over_the_wire(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.support.outbound.Transport", WireTransport)
