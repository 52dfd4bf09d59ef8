"""Where to, how far down, and with which parameters: three texts to one URL. Pure."""

from __future__ import annotations


def join(place: str, path: str, parameters: str) -> str:
    """The URL: `place`, then `path`, then the place's own query and the parameters.

    By concatenation with exactly one slash, never by URL resolution: a path can't replace what the
    place says. `path` and `parameters` may be empty.
    """
    start, mark, own = place.partition("?")
    if path:
        start = f"{start.rstrip('/')}/{path.lstrip('/')}"
    query = "&".join(filter(None, (own, parameters)))
    return f"{start}?{query}" if mark or query else start
