"""Administration over HTTP: what an admin's token may do, by the API and by the page for people."""
