"""Whether this server is ready, and how the services fare that it calls."""
