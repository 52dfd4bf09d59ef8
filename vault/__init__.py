"""The front door of the vault: sealed provider keys, platform tokens, and where keys may go."""

from vault.bindings import Binding
from vault.errors import (
    AlreadyExists,
    Declared,
    Invalid,
    MasterKeyMissing,
    NotThere,
    SchemaTooNew,
    StoreUnavailable,
    Unopenable,
    VaultError,
)
from vault.opening import open_vault
from vault.records import (
    DEFAULT_TENANT,
    ROLES,
    Applied,
    AuditEntry,
    Backend,
    BackupMade,
    Changes,
    Holdings,
    KeyRecord,
    KeyRef,
    NewKey,
    NewToken,
    Outcome,
    Purge,
    Recognised,
    Restored,
    Rotation,
    Token,
    TokenChange,
)
from vault.restoring import restore_vault
from vault.secret import Credential, Secret
from vault.tokens import describe as describe_token
from vault.tokens import looks_like_token
from vault.vault import Hasher, Hashing, Sealer, Vault

__all__ = [
    "DEFAULT_TENANT",
    "ROLES",
    "AlreadyExists",
    "Applied",
    "AuditEntry",
    "Backend",
    "BackupMade",
    "Binding",
    "Changes",
    "Credential",
    "Declared",
    "Hasher",
    "Hashing",
    "Holdings",
    "Invalid",
    "KeyRecord",
    "KeyRef",
    "MasterKeyMissing",
    "NewKey",
    "NewToken",
    "NotThere",
    "Outcome",
    "Purge",
    "Recognised",
    "Restored",
    "Rotation",
    "SchemaTooNew",
    "Sealer",
    "Secret",
    "StoreUnavailable",
    "Token",
    "TokenChange",
    "Unopenable",
    "Vault",
    "VaultError",
    "describe_token",
    "looks_like_token",
    "open_vault",
    "restore_vault",
]
