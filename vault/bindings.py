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
        return (scheme, host, port) == (self.scheme, self.host, self.port) and self._holds(path)

    def _holds(self, path: str) -> bool:
        if self.prefix == "/":
            return True
        if self.prefix.endswith("/"):
            return path.startswith(self.prefix) and len(path) > len(self.prefix)
        return path == self.prefix or path.startswith(self.prefix + "/")

    def __str__(self) -> str:
        default = {"https": 443, "http": 80}.get(self.scheme)
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port == default else f":{self.port}"
        return f"{self.scheme}://{host}{port}{self.prefix}"
