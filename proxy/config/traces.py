"""Where traces go: a URL, and whether what writes them is there."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from typing import Annotated, Final

from pydantic import AfterValidator

from proxy.destinations import parse_destination
from proxy.errors import RelayError

USUAL_PATH: Final = "/v1/traces"
LIBRARY: Final = "opentelemetry.proto.collector.trace"


def _collector(text: str) -> str:
    """With the usual path where there is none."""
    try:
        target = parse_destination(text)
    except RelayError as error:
        raise ValueError(error.remark) from None
    if not _is_installed(LIBRARY):
        raise ValueError(
            "expected the extra for traces, which is not installed: pip install 'keyrelay[traces]'"
        )
    return replace(target, path=USUAL_PATH).url if target.path == "/" else target.url


def _is_installed(name: str) -> bool:
    """Whether it could be imported; it is not."""
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:  # not even what it is part of
        return False


CollectorUrl = Annotated[str, AfterValidator(_collector)]
