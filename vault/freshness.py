"""Is the database the newest one? Its number of changes is authenticated; the anchor knows it."""

from __future__ import annotations

from typing import Final

from vault.anchor import Anchor, Point, mark, point_of
from vault.audit import ACCEPT
from vault.chain import State, judge_seal
from vault.core import Core
from vault.errors import RolledBack
from vault.sealing import KeyedHasher

_REMEDY: Final = (
    "if it is a backup that you restored, revoke and rotate again what was since then, and go on "
    "with: keyrelay serve --accept-rollback"
)
_NOWHERE: Final = Point(0, -1)


async def require_newest(core: Core, octets: bytes | None, accept: bool) -> None:
    """Lets a vault open whose database is the newest one, or is accepted as such.

    `octets`: the anchor as it was before the database was read. Raises RolledBack,
    StoreUnavailable.
    """
    hasher, state = await core.generation_hasher(), await core.store.state()
    try:
        judge(core.anchor, octets, state, hasher)
        if core.data_keys.sealed:
            judge_seal(hasher, state, registered=True)
        if accept:
            await core.require_pages(state)
    except RolledBack:
        if not accept:
            raise
        await _accept(core, octets, hasher)
    else:
        if not core.data_keys.sealed:  # just made, or by an earlier release
            state = await core.begin(hasher)
        core.anchor.advance(point_of(state), mark(hasher, point_of(state)))
    core.guard(hasher)
    await core.reload_data_keys()


def judge(anchor: Anchor, octets: bytes | None, state: State, hasher: KeyedHasher) -> None:
    """Raises RolledBack where a number was changed or is missing, or the anchor's is greater."""
    if octets is None:
        if anchor.outside and state.seal is not None:
            raise RolledBack(
                f"there is no anchor {anchor.path}: move the one of the data directory there; if "
                "it is lost, go on with: keyrelay serve --accept-rollback"
            )
        known = _NOWHERE
    else:
        known = anchor.point(octets, hasher)
    if not (state.seal is None and octets is None):
        judge_seal(hasher, state)
    there = point_of(state)
    if there < known:
        raise RolledBack(
            f"the vault's database is an older one: its audit log has {max(there.rows, 0)} rows "
            f"and it has seen {there.generation} changes, the anchor {anchor.path} knows of "
            f"{max(known.rows, 0)} and {known.generation}; {_REMEDY}"
        )


async def _accept(core: Core, octets: bytes | None, hasher: KeyedHasher) -> None:
    """From here on this database is the newest one, and counts on from the greater number."""
    try:
        known = core.anchor.point(octets, hasher) if octets else _NOWHERE
    except RolledBack:
        known = _NOWHERE
    async with core.accepting(known.generation + 1) as change:
        await change.record(ACCEPT, "", str(known.generation))
    core.anchor.reset(core.point, mark(hasher, core.point))
