"""Several processes on one machine that serve as one: what they share, over a socket of theirs."""
