"""One file per step, in order; an older release refuses what a newer one has made."""
