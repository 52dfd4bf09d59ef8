"""Is the database the newest one? Its number of changes is authenticated; the anchor knows it."""

from __future__ import annotations

from typing import Final

from vault.anchor import Anchor, judge_seal, mark
from vault.core import Core
from vault.errors import RolledBack
from vault.sealing import KeyedHasher
from vault.store import State

_REMEDY: Final = (
    "if it is a backup that you restored, revoke and rotate again what was since then, and go on "
    "with: keyrelay serve --accept-rollback"
)


async def require_newest(core: Core, octets: bytes | None, accept: bool) -> None:
    """Lets a vault open whose database is the newest one, or is accepted as such.

    `octets`: the anchor as it was before the database was read. Raises RolledBack,
    StoreUnavailable.
    """
    hasher, state = await core.generation_hasher(), await core.store.state()
    try:
        judge(core.anchor, octets, state, hasher)
    except RolledBack:
        if not accept:
            raise
        await _accept(core, octets, hasher)
    else:
        if state.seal is None:  # just made, or by a release without seals
            await core.store.seal(mark(hasher, state.generation), state.generation)
        core.anchor.advance(state.generation, mark(hasher, state.generation))
    core.guard(hasher)


def judge(anchor: Anchor, octets: bytes | None, state: State, hasher: KeyedHasher) -> None:
    """Raises RolledBack where a number was changed or is missing, or the anchor's is greater."""
    if octets is None:
        if anchor.outside and state.seal is not None:
            raise RolledBack(
                f"there is no anchor {anchor.path}: move the one of the data directory there; if "
                "it is lost, go on with: keyrelay serve --accept-rollback"
            )
        known = 0
    else:
        known = anchor.generation(octets, hasher)
    if not (state.seal is None and octets is None):
        judge_seal(hasher, state.generation, state.seal)
    if state.generation < known:
        raise RolledBack(
            f"the vault's database is an older one: it has seen {state.generation} changes, the "
            f"anchor {anchor.path} knows of {known}; {_REMEDY}"
        )


async def _accept(core: Core, octets: bytes | None, hasher: KeyedHasher) -> None:
    """From here on this database is the newest one, and counts on from the greater number."""
    try:
        known = core.anchor.generation(octets, hasher) if octets else 0
    except RolledBack:
        known = 0
    async with core.accepting(known + 1) as change:
        await change.record("rollback accept", "", str(known))
    core.anchor.reset(core.generation, mark(hasher, core.generation))
