"""What becomes of a Location: through us again, or not at all (RFC 9110 section 10.2.2). Pure."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote, urljoin

from proxy.destinations import Target, parse_destination
from proxy.errors import BadCall, RedirectRefused
from proxy.grant import Grant
from proxy.messages import Field, Fields, values

REDIRECTS = frozenset({301, 302, 303, 307, 308})


@dataclass(frozen=True, slots=True)
class Redirects:
    """Rewrites the places that a grant covers; `public_url` None: path-absolute."""

    public_url: str | None = None

    def rewritten(self, grant: Grant, status: int, fields: Fields) -> Fields:
        """The fields with each Location judged; raises RedirectRefused on a redirect elsewhere."""
        if not values(fields, b"location"):
            return fields
        return tuple(
            self._field(grant, status, field) if field[0] == b"location" else field
            for field in fields
        )

    def _field(self, grant: Grant, status: int, field: Field) -> Field:
        location = field[1].decode("latin-1")
        target = _resolved(grant.target, location)
        if target is not None and grant.covers(target):
            return (b"location", self._through_us(grant, target, location).encode())
        if status not in REDIRECTS:
            return field
        where = target.host if target is not None else "a place that is not a plain URL"
        raise RedirectRefused(
            f"The destination redirects to {where}, which is not registered for this key; "
            "if that is right, fetch the URL in `location` yourself.",
            members={"location": _printable(location)},
        )

    def _through_us(self, grant: Grant, target: Target, location: str) -> str:
        service = f"&service={grant.service.name}" if grant.service else ""
        _, hash_sign, fragment = location.partition("#")
        base = (self.public_url or "").rstrip("/")
        return f"{base}/proxy?server={quote(target.url, safe='')}{service}{hash_sign}{fragment}"


def _resolved(target: Target, location: str) -> Target | None:
    """The reference resolved against the request's URL (RFC 3986 section 5.2) and judged."""
    if any(ord(character) <= 0x20 or ord(character) >= 0x7F for character in location):
        return None
    try:
        return parse_destination(urljoin(target.url, location.partition("#")[0]))
    except (BadCall, ValueError):
        return None


def _printable(location: str) -> str:
    return location.encode("ascii", "backslashreplace").decode()[:2048]
