"""Whether a browser sends a request from a page of ours or from somebody else's; pure."""

from __future__ import annotations

from urllib.parse import urlsplit

from proxy.errors import Forbidden
from proxy.messages import Fields, value, values

FOREIGN = (
    "This is not for pages of other origins: use keyrelay's own page, or a program that "
    "sends no Origin."
)

NO_PAGE = (
    "The forms of the page are for browsers, which say the page's Origin: a program uses "
    "/admin/api/v1 with a token."
)


class OwnOrigin:
    """`public_url`: where callers reach keyrelay, if that is not what they say in Host."""

    def __init__(self, public_url: str | None = None) -> None:
        self.public_url = public_url
        parts = urlsplit(public_url) if public_url else None
        self._public = f"{parts.scheme}://{parts.netloc}".encode() if parts else None

    def check(self, fields: Fields) -> None:
        """Raises Forbidden where a browser says that the request is some other page's."""
        sites = values(fields, b"sec-fetch-site")
        if any(site not in (b"same-origin", b"none") for site in sites):
            raise Forbidden(FOREIGN)
        own = self._own(fields)
        if any(origin not in own for origin in values(fields, b"origin")):
            raise Forbidden(FOREIGN)

    def check_change(self, fields: Fields) -> None:
        """The same for what a page of ours sends: every browser says the Origin of a POST."""
        self.check(fields)
        if value(fields, b"origin") is None or value(fields, b"sec-fetch-site") == b"none":
            raise Forbidden(NO_PAGE)

    def _own(self, fields: Fields) -> frozenset[bytes]:
        """What stands in Host, under both schemes: TLS may end at a server before us."""
        host = (value(fields, b"host") or b"").lower()
        own = {b"http://" + host, b"https://" + host} if host else set()
        return frozenset(own | {self._public} if self._public else own)
