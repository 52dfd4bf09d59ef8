"""The wrapping of one data key says that the vault is sealed: older releases don't open it."""

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Nothing here: whoever opens the vault has the master key that this takes."""
