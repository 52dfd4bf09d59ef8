"""How keyrelay grows: over workers, over instances, over what it holds."""
