"""Styles, scripts and pictures of the page: named by what they hold, so that they never change."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from proxy.admin.answers import answering
from proxy.errors import NotFound

PLACE: Final = "/admin/static"
_HOME: Final = Path(__file__).parent.parent / "static"
_KINDS: Final = {
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}
_FOR_GOOD: Final = {
    "Cache-Control": "public, max-age=31536000, immutable",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
}


@dataclass(frozen=True, slots=True)
class Asset:
    """One file; `version` is of its octets."""

    octets: bytes
    kind: str
    version: str


@cache
def assets() -> dict[str, Asset]:
    """Every file by its name below `static`; read once, when somebody first asks."""
    return {
        path.relative_to(_HOME).as_posix(): _read(path)
        for path in sorted(_HOME.rglob("*"))
        if path.suffix in _KINDS
    }


def address(name: str) -> str:
    """Where a page finds a file, for as long as it holds what it holds now."""
    return f"{PLACE}/{assets()[name].version}/{name}"


async def give(request: Request) -> Response:
    """One file, to anybody: nothing in it is of any tenant."""
    asset = assets().get(request.path_params["name"])
    if asset is None or asset.version != request.path_params["version"]:
        raise NotFound("There is no such file: load the page again.")
    return Response(asset.octets, headers=_FOR_GOOD, media_type=asset.kind)


def route() -> Route:
    """Where they are given."""
    return Route(f"{PLACE}/{{version}}/{{name:path}}", answering(give))


def _read(path: Path) -> Asset:
    octets = path.read_bytes()
    return Asset(octets, _KINDS[path.suffix], sha256(octets).hexdigest()[:12])
