"""The steps that make the tables, one after another; run by vault.schema."""
