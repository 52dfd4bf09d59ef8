"""The upstreams: nginx that answers files, plain and over TLS, and the origin that streams."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from bench import matter
from bench.room import ROOT, MissingError, Room, bench_python, program
from bench.running import Program

NGINX = """
worker_processes 1; daemon off; pid nginx.pid; error_log error.log;
{user}
events {{ worker_connections 8192; }}
http {{
  access_log off; default_type application/json; sendfile on; tcp_nodelay on;
  keepalive_requests 1000000000; keepalive_timeout 1h; client_max_body_size 0;
  open_file_cache max=100; open_file_cache_valid 1h;
  client_body_temp_path tmp; proxy_temp_path tmp; fastcgi_temp_path tmp;
  uwsgi_temp_path tmp; scgi_temp_path tmp;
{servers}
}}
"""

UPSTREAM = """
  server {{
    listen 127.0.0.1:{plain} backlog=4096;
    {tls}
    root www;
    location /v1/ {{ error_page 405 =200 /answer; try_files /answer =404; }}
    location / {{ error_page 405 =200 $uri; }}
  }}
"""

TLS = """listen 127.0.0.1:{port} ssl backlog=4096;
    ssl_certificate ../certificates/server.pem; ssl_certificate_key ../certificates/server.key;"""


def nginx_command(folder: Path, servers: str) -> list[str]:
    """Writes the configuration of an nginx of our own; how to start it."""
    user = "user root;" if os.geteuid() == 0 else ""  # else its worker can't enter our directory
    (folder / "nginx.conf").write_text(NGINX.format(user=user, servers=servers))
    return [program("nginx"), "-p", f"{folder}/", "-c", "nginx.conf", "-e", "error.log"]


def files(room: Room) -> Program:
    """nginx with the answers, on both ports; without TLS where no certificate can be made."""
    folder = room.folder("upstream")
    matter.write_files(folder / "www")
    tls = TLS.format(port=room.tls) if authority(room) else ""
    servers = UPSTREAM.format(plain=room.plain, tls=tls)
    return Program("the upstream", nginx_command(folder, servers), folder, room.plain, ready="/1k")


def origin(room: Room) -> Program:
    """The origin of streams and sink of uploads."""
    command = [sys.executable, "-m", "bench.origin", str(room.origin)]
    environ = {"PYTHONPATH": str(ROOT)}
    return Program("the origin", command, room.folder("origin"), room.origin, environ, "/count")


def authority(room: Room) -> Path | None:
    """The PEM file of an authority that signed `localhost`, made once; None without trustme."""
    folder = room.folder("certificates")
    made = folder / "client.pem"
    if not made.exists():
        try:
            python = bench_python("trustme")
        except MissingError:
            return None
        subprocess.run([python, "-m", "trustme", "-q", "-d", str(folder)], check=True)
    return made
