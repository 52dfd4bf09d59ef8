"""The servers that are measured, one file each."""

from __future__ import annotations

from bench.case import Builder
from bench.peers import keyrelay, litellm, nginx, portkey, uvicorn, varnish

SITES: dict[str, Builder] = {
    "uvicorn": uvicorn.site,
    "keyrelay": keyrelay.site,
    "keyrelay-disk": keyrelay.disk_site,
    "keyrelay-quiet": keyrelay.quiet_site,
    "keyrelay-limited": keyrelay.limited_site,
    "nginx": nginx.site,
    "varnish": varnish.site,
    "litellm": litellm.site,
    "litellm-cache": litellm.cache_site,
    "portkey": portkey.site,
}
"""In the order of the table."""
