"""What the vault refuses, each with one sentence that names the remedy and never a value."""

from __future__ import annotations


class VaultError(Exception):
    """The vault can't do what was asked; the message is one safe sentence."""


class Invalid(VaultError):
    """A name, role, expiry or key that the vault would never store."""


class AlreadyExists(VaultError):
    """A key, token or backend of that name is there already."""


class NotThere(VaultError):
    """No key, token, backend or tenant of that name."""


class Declared(VaultError):
    """The thing is owned by the configuration file and can't be changed here."""


class Unopenable(VaultError):
    """A row or data key does not open: it was changed, moved or replayed, or its master key is."""


class MasterKeyMissing(VaultError):
    """No master key, or none that fits this database."""


class RolledBack(VaultError):
    """The database is an older one than there was, or its number of changes is not ours."""


class SchemaTooNew(VaultError):
    """The database was written by a newer release."""


class StoreUnavailable(VaultError):
    """The database can't be read or written now (locked, gone, full)."""
