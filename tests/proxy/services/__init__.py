"""Services by name."""
