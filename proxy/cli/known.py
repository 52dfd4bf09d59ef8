"""A service by the name that somebody typed."""

from __future__ import annotations

import difflib

from proxy.cli.failures import Failed
from proxy.services import Service, Services


def known_service(services: Services, name: str) -> Service:
    """The service of a name or an alias; raises Failed with names that are near."""
    service = services.get(name)
    if service is not None:
        return service
    near = difflib.get_close_matches(name, services.names, n=3)
    hint = f"did you mean {' or '.join(near)}" if near else "see keyrelay service list"
    raise Failed(f"no service has this name: {hint}")
