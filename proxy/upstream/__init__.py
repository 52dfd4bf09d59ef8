"""Upstreams: what sends an authorised call and gives back the response."""
