"""The tests mirror the rooms; `support/` holds shared doubles, `scenarios/` run real servers."""
