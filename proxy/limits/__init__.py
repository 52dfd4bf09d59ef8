"""How many calls a token or a tenant may make in a time, and how many of them upstream."""
