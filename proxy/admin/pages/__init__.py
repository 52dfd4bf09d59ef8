"""The page for people at `/admin`: server-rendered, under a strict Content-Security-Policy."""
