"""varnish: hits from memory, behind a check of the token."""

from __future__ import annotations

from bench.case import Bodies, Case, Expected, Site
from bench.load import Load
from bench.room import Room, free_port, program
from bench.running import Program

VCL = """
vcl 4.1;
backend plain {{ .host = "127.0.0.1"; .port = "{plain}"; }}
sub vcl_recv {{
  if (req.http.Authorization != "Bearer token") {{ return (synth(401)); }}
  unset req.http.Authorization;
  return (hash);
}}
sub vcl_backend_response {{ set beresp.ttl = 1h; }}
sub vcl_deliver {{ if (obj.hits > 0) {{ set resp.http.X-Cache = "HIT"; }} }}
"""
TOKEN = ("Authorization", "Bearer token")


def site(room: Room, _: Bodies) -> Site:
    port, folder = free_port(), room.folder("varnish")
    (folder / "default.vcl").write_text(VCL.format(plain=room.plain))
    where = [
        "-a",
        f"127.0.0.1:{port}",
        "-n",
        str(folder / "work"),
        "-f",
        str(folder / "default.vcl"),
    ]
    command = [program("varnishd"), "-F", "-j", "none", *where, "-s", "malloc,64m"]
    kept = Case("hit", Load("/v1/kept", fields=(TOKEN,)), Expected("X-Cache", "HIT"))
    return Site("varnish", Program("varnish", command, folder, port), (kept,))
