"""Where a key may go: scheme, host, port and path prefix. Pure; never parses a URL."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Binding:
    """One place, in the canonical form that the proxy's destination parser makes.

    `host` is lower-case ASCII (or an IP address without brackets), `port` is always a number,
    `prefix` starts with `/`. `/a` covers `/a` and `/a/...`; `/a/` only what is below; `/` all.
    """

    scheme: str
    host: str
    port: int
    prefix: str = "/"

    def covers(self, scheme: str, host: str, port: int, path: str) -> bool:
        """Whether a canonical destination lies inside this place; case counts in the path."""
        place = (self.scheme, self.host, self.port)
        return (scheme, host, port) == place and below(self.prefix, path)

    def __str__(self) -> str:
        default = {"https": 443, "http": 80}.get(self.scheme)
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port == default else f":{self.port}"
        return f"{self.scheme}://{host}{port}{self.prefix}"


def below(prefix: str, path: str) -> bool:
    """Whether a path lies under a prefix, by whole segments; see Binding for what that means."""
    if prefix == "/":
        return True
    if prefix.endswith("/"):
        return path.startswith(prefix) and len(path) > len(prefix)
    return path == prefix or path.startswith(prefix + "/")
