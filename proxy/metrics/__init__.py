"""What Prometheus scrapes: calls counted as they end, and the state of the rooms at that moment."""

from proxy.metrics.pages import listener_app, routes
from proxy.metrics.state import Sources
from proxy.metrics.tallies import Tallies
from proxy.metrics.team import TeamMetrics

__all__ = ["Sources", "Tallies", "TeamMetrics", "listener_app", "routes"]
