"""Calls as spans of OpenTelemetry, given to a collector over OTLP; needs the extra `traces`.

Nothing of OpenTelemetry is loaded before calls are traced, and then by the thread that sends.
"""

from proxy.traces.marks import MarksLookUps, MarksUpstream
from proxy.traces.tracing import Tracing

__all__ = ["MarksLookUps", "MarksUpstream", "Tracing"]
