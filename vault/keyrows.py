"""The rows of provider keys: what is asked of them, and what a sealed one is bound to."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Row,
    Select,
    String,
    Table,
    and_,
    column,
    delete,
    func,
    insert,
    or_,
    select,
    tuple_,
    update,
    values,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from vault.audit import Change
from vault.errors import Unopenable
from vault.records import KeyRecord, KeyRef, NewKey, Recognised
from vault.register import Entry, Register, entry_of
from vault.sealing import DataKey, KeyedHasher, encode
from vault.secret import Credential, Secret, octets_of
from vault.tables import KEY_VERSIONS, KEYS

RETIRED_KEPT: Final = 86400.0
"""Seconds for which a rotated version is still recognised at most; whoever asks may take less."""

Name = tuple[str, str, str]
"""Tenant, service and alias."""

_PART: Final = 500
"""Names that one statement asks for."""

_K: Final = KEYS.c
_V: Final = KEY_VERSIONS.c
_NAMES: Final = [column.name for column in _K]
_OWN: Final = [column.name for column in _V]
"""Of the columns of `_select`, in their order: thousands of rows are judged by them."""

_SAME_NAME: Final = and_(_K.tenant == _V.tenant, _K.service == _V.service, _K.alias == _V.alias)


@dataclass(frozen=True, slots=True)
class StoredKey:
    """One version of a key as it stands in the database; `sealed` None: nothing to open."""

    ref: KeyRef
    first_version: int
    added_at: float
    created_at: float
    recognised_by: str
    masked: str
    hosts_text: str
    fingerprint: bytes
    sealed: bytes | None = field(repr=False)
    entries: tuple[Entry, ...] = ()
    added: int = 0

    def record(self) -> KeyRecord:
        """The key as a list shows it."""
        rotated_at = self.created_at if self.ref.version > self.first_version else None
        return KeyRecord(self.ref, self.masked, self.added_at, rotated_at)

    def aad(self) -> bytes:
        """What the sealed octets are bound to: any of it changed, they don't open."""
        ref = self.ref
        name = (ref.tenant, ref.service, ref.alias, ref.version)
        rest = (self.recognised_by, self.masked, self.hosts_text, self.fingerprint)
        return encode("keyrelay key 1", *name, *rest)

    def known_to(self, register: Register | None) -> bool:
        """Whether its rows are as they were written last; None: there is no register yet."""
        return register is None or all(map(register.knows, self.entries))

    @property
    def name(self) -> Name:
        """Whose key it is, and which."""
        return self.ref.tenant, self.ref.service, self.ref.alias

    @property
    def described(self) -> str:
        """The row's name for a message."""
        ref = self.ref
        return f"key {ref.service}/{ref.alias} of tenant {ref.tenant}, version {ref.version},"


def version_of(new: NewKey, version: int, hasher: KeyedHasher, at: float) -> StoredKey:
    """A new version, not sealed yet."""
    secret = new.credential[new.recognised_by]
    return StoredKey(
        ref=KeyRef(new.tenant, new.service, new.alias, version, hosts=new.hosts),
        first_version=version,
        added_at=at,
        created_at=at,
        recognised_by=new.recognised_by,
        masked=secret.masked(),
        hosts_text=json.dumps(new.hosts),
        fingerprint=fingerprint(hasher, octets_of(secret)),
        sealed=None,
    )


def fingerprint(hasher: KeyedHasher, octets: bytes) -> bytes:
    """The keyed hash by which a key that comes back is recognised."""
    return hasher.digest(encode("keyrelay fingerprint 1", octets))


def packed(credential: Credential) -> bytes:
    """All parts as one JSON object; base64, because a key may be any octets."""
    parts = {name: base64.b64encode(octets_of(part)).decode() for name, part in credential.items()}
    return json.dumps(parts, sort_keys=True).encode()


def unpacked(octets: bytes) -> Credential:
    """The parts again; read-only."""
    parts = json.loads(octets)
    return MappingProxyType({name: Secret(base64.b64decode(parts[name])) for name in parts})


def opened(row: StoredKey, key: DataKey) -> bytes:
    """The packed credential of a row; raises Unopenable, naming the row."""
    try:
        return key.open(row.sealed or b"", row.aad())
    except Unopenable as error:
        raise unopenable(row) from error


def unopenable(row: StoredKey) -> Unopenable:
    """What to raise for a row that does not open."""
    return Unopenable(
        f"{row.described} does not open: it was changed, moved or replayed; "
        "remove the key and add it again, or restore the database from a backup"
    )


# reading --------------------------------------------------------------------------------------


async def current(
    connection: AsyncConnection, tenant: str, service: str, alias: str
) -> StoredKey | None:
    """The current version of a live key, or None."""
    row = (await connection.execute(_current().where(_named(tenant, service, alias)))).first()
    return _stored(row, row.version) if row is not None else None


async def current_of(
    connection: AsyncConnection, names: Sequence[Name]
) -> AsyncIterator[StoredKey]:
    """The current versions of those that are live keys."""
    for some in in_parts(names):
        for row in await connection.execute(_current().where(among(some))):
            yield stored(row)


def among(names: Sequence[Name], table: Table = KEYS) -> ColumnElement[bool]:
    """Whether a row is one of these names'. Found by the index: SQLite uses none for a list."""
    columns = [column(word, String) for word in ("tenant", "service", "alias")]
    asked = values(*columns, name="asked").data(names).cte("asked")
    return tuple_(table.c.tenant, table.c.service, table.c.alias).in_(select(asked))


def in_parts(names: Sequence[Name]) -> Iterator[Sequence[Name]]:
    """No more at once than a statement takes."""
    return (names[start : start + _PART] for start in range(0, len(names), _PART))


async def all_current(connection: AsyncConnection, tenant: str | None) -> list[StoredKey]:
    """The current versions of one tenant's live keys or of all: the default first, then by age.
    They can't be judged."""
    rows = await connection.execute(in_order(tenant))
    return [_stored(row, row.version, judged=False) for row in rows]


async def with_fingerprint(
    connection: AsyncConnection, wanted: bytes, now: float, register: Register
) -> list[Recognised]:
    """The versions with this fingerprint, current or retired not too long ago; one for each key.

    Raises Unopenable for one that is not as it was written last.
    """
    young = or_(_V.retired_at.is_(None), _V.retired_at > now - RETIRED_KEPT)
    query = _select().join_from(KEYS, KEY_VERSIONS, _SAME_NAME).order_by(_V.version.desc())
    found = await connection.execute(query.where(_K.live, _V.fingerprint == wanted, young))
    newest: dict[tuple[str, str, str], Recognised] = {}
    for row in found:
        name, stored = (row.tenant, row.service, row.alias), _stored(row, row.own_version)
        if not stored.known_to(register):
            raise unopenable(stored)
        newest.setdefault(name, Recognised(stored.ref, row.own_retired_at))
    return list(newest.values())


async def sealed_otherwise(
    connection: AsyncConnection, data_key: str, most: int
) -> list[StoredKey]:
    """Some versions that are sealed with any data key but this one."""
    query = _select().join_from(KEYS, KEY_VERSIONS, _SAME_NAME)
    query = query.where(_V.sealed.is_not(None), _V.data_key != data_key)
    found = await connection.execute(query.limit(most))
    return [_stored(row, row.own_version) for row in found]


def stored(row: Row[Any]) -> StoredKey:
    """A row of `in_order`."""
    return _stored(row, row.version)


def resting() -> Select[Any]:
    """The rows of names that are no keys, or no more."""
    return select(KEYS).where(_K.live.is_not(True))


def in_order(tenant: str | None) -> Select[Any]:
    """The rows of a tenant's live keys, or of all: the default of a service first, then by age."""
    query = _current().order_by(_K.tenant, _K.service, _K.is_default.desc(), _K.added)
    return query if tenant is None else query.where(_K.tenant == tenant)


def _current() -> Select[Any]:
    # An outer join: a version that was taken out must show as a key that does not open.
    join = and_(_SAME_NAME, _K.version == _V.version)
    return _select().join_from(KEYS, KEY_VERSIONS, join, isouter=True).where(_K.live)


def _select() -> Select[Any]:
    return select(KEYS, *(column.label(f"own_{column.name}") for column in _V))


def _named(tenant: str, service: str, alias: str) -> ColumnElement[bool]:
    return and_(_K.tenant == tenant, _K.service == service, _K.alias == alias)


def _versions_named(ref: KeyRef) -> ColumnElement[bool]:
    return _versions_of({"tenant": ref.tenant, "service": ref.service, "alias": ref.alias})


def _versions_of(name: Mapping[str, str]) -> ColumnElement[bool]:
    return and_(*(_V[column] == word for column, word in name.items()))


def _version_named(ref: KeyRef) -> ColumnElement[bool]:
    return and_(_versions_named(ref), _V.version == ref.version)


def _ref(row: Row[Any], version: int) -> KeyRef:
    name = (row.tenant, row.service, row.alias)
    return KeyRef(*name, version, row.is_default, _hosts(row.own_hosts or ""))


def _hosts(text: str) -> tuple[str, ...]:
    # Damaged ones are none: the list still shows the key, and opening it names the row.
    try:
        return tuple(json.loads(text))
    except (ValueError, TypeError):
        return ()


def _stored(row: Row[Any], version: int, judged: bool = True) -> StoredKey:
    return StoredKey(
        ref=_ref(row, version),
        first_version=row.first_version,
        added_at=_time(row.added_at),
        created_at=_time(row.own_created_at or row.added_at),
        recognised_by=row.own_recognised_by or "",
        masked=row.own_masked or "…",
        hosts_text=row.own_hosts or "",
        fingerprint=row.own_fingerprint or b"",
        # SQLite keeps any type in any column: what is no octets opens as a changed value.
        sealed=row.own_sealed if isinstance(row.own_sealed, bytes | None) else b"",
        entries=tuple(_entries(row)) if judged else (),
        added=row.added,
    )


def _entries(row: Row[Any]) -> Iterator[Entry]:
    """Of the name's row, and of the version's if that is there."""
    columns = tuple(row)
    yield entry_of(KEYS.name, dict(zip(_NAMES, columns, strict=False)))
    if row.own_version is not None:
        yield entry_of(KEY_VERSIONS.name, dict(zip(_OWN, columns[len(_NAMES) :], strict=True)))


def _time(value: object) -> float:
    return value if isinstance(value, float) else 0.0


# writing --------------------------------------------------------------------------------------


async def add_name(change: Change, new: NewKey) -> int:
    """Makes a name live, new or once removed, and returns the version that is next for it."""
    named = _named(new.tenant, new.service, new.alias)
    used = await change.connection.scalar(select(_K.version).where(named))
    added = int(await change.connection.scalar(select(func.max(_K.added))) or 0) + 1
    same_service = select(_K.alias).where(_K.tenant == new.tenant, _K.service == new.service)
    first = (await change.connection.execute(same_service.where(_K.live))).first() is None
    version = int(used or 0) + 1
    numbers = {"version": version, "first_version": version, "added": added}
    values = {"live": True, "is_default": first, "added_at": change.at, **numbers}
    if used is None:
        name = {"tenant": new.tenant, "service": new.service, "alias": new.alias}
        # Versions without a name are nobody's: somebody has taken its row out.
        await change.book.write(delete(KEY_VERSIONS).where(_versions_of(name)))
        await change.book.write(insert(KEYS).values(**name, **values))
    else:
        await change.book.write(update(KEYS).where(named).values(**values), judged=True)
    return version


async def insert_version(change: Change, row: StoredKey, key: DataKey, plain: bytes) -> None:
    """Seals a version, stores it and makes it the current one of its name."""
    ref = row.ref
    name = {"tenant": ref.tenant, "service": ref.service, "alias": ref.alias}
    values = sealed_columns(row, key, plain)
    await change.book.write(insert(KEY_VERSIONS).values(**name, **values))
    named = _named(ref.tenant, ref.service, ref.alias)
    await change.book.write(update(KEYS).where(named).values(version=ref.version))


def sealed_columns(row: StoredKey, key: DataKey, plain: bytes) -> dict[str, object]:
    """The columns of a version beside its name, its value sealed."""
    return {
        "version": row.ref.version,
        "sealed": key.seal(plain, row.aad()),
        "data_key": key.id.hex(),
        "recognised_by": row.recognised_by,
        "masked": row.masked,
        "hosts": row.hosts_text,
        "fingerprint": row.fingerprint,
        "created_at": row.created_at,
    }


async def reseal(change: Change, row: StoredKey, key: DataKey, plain: bytes) -> None:
    """Seals a version with another data key; nothing else of it changes."""
    mine = _version_named(row.ref)
    values = {"sealed": key.seal(plain, row.aad()), "data_key": key.id.hex()}
    await change.book.write(update(KEY_VERSIONS).where(mine).values(**values), judged=True)


async def retire(change: Change, ref: KeyRef) -> None:
    """Takes the sealed value out of a version; its fingerprint stays for a while."""
    mine = _version_named(ref)
    values = {"sealed": None, "data_key": None, "retired_at": change.at}
    await change.book.write(update(KEY_VERSIONS).where(mine).values(**values))
    old = _V.retired_at <= change.at - RETIRED_KEPT
    await change.book.write(delete(KEY_VERSIONS).where(old))


async def remove(change: Change, ref: KeyRef) -> None:
    """Ends a name with all its versions; only the number of the last one stays."""
    name = (ref.tenant, ref.service, ref.alias)
    await change.book.write(delete(KEY_VERSIONS).where(_versions_named(ref)))
    gone = {"live": False, "is_default": False}
    # Also of rows that somebody has changed: this is how to be rid of them.
    await change.book.write(update(KEYS).where(_named(*name)).values(**gone), judged=True)


async def remove_all(change: Change, tenant: str) -> None:
    """Ends every key of a tenant."""
    await change.book.write(delete(KEY_VERSIONS).where(_V.tenant == tenant))
    gone = {"live": False, "is_default": False}
    await change.book.write(update(KEYS).where(_K.tenant == tenant).values(**gone), judged=True)


async def set_default(change: Change, tenant: str, service: str, alias: str) -> None:
    """Makes one key of a service its default, and no other."""
    wanted = _K.alias == alias
    other = and_(_K.tenant == tenant, _K.service == service, _K.is_default != wanted)
    await change.book.write(update(KEYS).where(other).values(is_default=wanted))


async def oldest(connection: AsyncConnection, tenant: str, service: str) -> str | None:
    """The alias of a service that was added first and still lives."""
    query = select(_K.alias).where(_K.tenant == tenant, _K.service == service, _K.live)
    alias: str | None = await connection.scalar(query.order_by(_K.added).limit(1))
    return alias
