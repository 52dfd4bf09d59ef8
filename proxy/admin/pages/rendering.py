"""Templates to answers: every value escaped, every page under one strict policy."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

from starlette.responses import Response

from proxy import __version__
from proxy.admin.pages import formats
from proxy.admin.pages.assets import address
from proxy.authentication import UNKNOWN_CALLER
from proxy.errors import RelayError

if TYPE_CHECKING:
    from jinja2 import Environment

POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
    )
)
FIELDS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "same-origin",  # with less, browsers say of our own forms: Origin: null
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}

_FOR_PEOPLE: Final = {
    UNKNOWN_CALLER: "No token like this is known here, or it is over. Paste the whole of it, "
    "from kr_ to its end.",
}
_HOME: Final = Path(__file__).parent.parent / "templates"


def page(name: str, values: Mapping[str, Any], status: int = 200) -> Response:
    """The answer that a template makes of the values."""
    text = _environment().get_template(name).render(values)
    return Response(text, status, FIELDS, "text/html; charset=utf-8")


def sign_in_page(sentence: str = "", status: int = 200) -> Response:
    """Where a token is asked for."""
    return page("signin.html", {"sentence": sentence}, status)


def refusal_page(error: RelayError, call_id: str) -> Response:
    """An error as people read it."""
    if error.status == 401:
        return sign_in_page(_FOR_PEOPLE.get(error.detail, error.detail), 401)
    return page("refused.html", {"error": error, "call_id": call_id}, error.status)


def link(path: str, **query: str | None) -> str:
    """A path of ours with a query."""
    given = {name: value for name, value in query.items() if value}
    return f"{path}?{urlencode(given)}" if given else path


@cache
def _environment() -> Environment:
    """Made when the first page is asked for: most servers are never looked at."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined  # noqa: PLC0415 - see above

    made = Environment(
        loader=FileSystemLoader(_HOME),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    made.globals |= {"asset": address, "link": link, "version": __version__}
    for name in ("count", "short", "share", "money", "seconds", "octets", "span", "moment"):
        made.filters[name] = getattr(formats, name)
    made.filters |= {"clock": formats.clock, "machine": formats.machine}
    return made
