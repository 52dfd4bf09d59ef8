"""Kill -9 at a known step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from vault import Secret, restore_vault, restoring


class Killed(BaseException):
    """Stands in for it."""


async def restore_killed(there: Path, octets: bytes, words: Secret, writes: int) -> list[str]:
    """Over the vault that is there, killed once so many files are written; their names."""
    real: Any = restoring.write_private
    written: list[str] = []

    def write(path: Path, octets: bytes) -> None:
        real(path, octets)
        written.append(path.name)
        if len(written) == writes:
            raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(restoring, "write_private", write)
        with pytest.raises(Killed):
            await restore_vault(there, octets, words, replace=True)
    return written
