"""HTTP/1.1 to the upstream on connections of our own: the transport that forwards cheaply."""
