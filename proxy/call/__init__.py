"""The raw request target to what the caller asks: server, service, cache, invalidate. Pure."""

from proxy.call.forms import parse_directions
from proxy.call.shapes import Call, Directions, ServiceNames

__all__ = ["Call", "Directions", "ServiceNames", "parse_directions"]
