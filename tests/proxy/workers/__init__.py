"""The room `proxy.workers`."""
