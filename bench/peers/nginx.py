"""nginx: `proxy_pass` and `proxy_cache` behind a check of the token, and unbuffered streams."""

from __future__ import annotations

from bench import matter
from bench.case import Bodies, Case, Expected, Site, post
from bench.load import Load
from bench.room import Room, free_port
from bench.running import Program
from bench.upstreams import nginx_command

SERVER = """
  proxy_cache_path cache keys_zone=kept:10m;
  map $http_authorization $known {{ default 0; "Bearer token" 1; }}
  upstream plain {{ server 127.0.0.1:{plain}; keepalive 512; keepalive_requests 1000000000; }}
  upstream origin {{ server 127.0.0.1:{origin}; keepalive 512; keepalive_requests 1000000000; }}
  proxy_http_version 1.1;
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    if ($known = 0) {{ return 401; }}
    proxy_set_header Connection "";
    proxy_set_header Authorization "Bearer sk-plain-0123456789abcdef";
    location / {{ proxy_pass http://plain; }}
    location /stream {{ proxy_buffering off; proxy_pass http://origin{completions}; }}
    location /kept {{
      proxy_cache kept; proxy_cache_valid 200 1h; add_header X-Cache $upstream_cache_status;
      proxy_pass http://plain/v1/kept;
    }}
  }}
"""
TOKEN = ("Authorization", "Bearer token")


def site(room: Room, bodies: Bodies) -> Site:
    port, folder = free_port(), room.folder("nginx")
    ports = {"port": port, "plain": room.plain, "origin": room.origin}
    server = SERVER.format(completions=matter.COMPLETIONS, **ports)
    program = Program("nginx", nginx_command(folder, server), folder, port)
    cases = (
        Case("hit", Load("/kept", fields=(TOKEN,)), Expected("X-Cache", "HIT")),
        Case("forward", post(matter.COMPLETIONS, bodies["question"], TOKEN)),
        Case("sse", post("/stream", bodies["stream"], TOKEN), Expected(body=b"[DONE]"), True),
        Case("down-1m", Load("/1m", fields=(TOKEN,))),
    )
    return Site("nginx", program, cases)
