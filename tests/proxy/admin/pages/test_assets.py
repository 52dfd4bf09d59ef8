"""What the page is drawn with: there in every installation, and named by what it holds."""

from __future__ import annotations

import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest

from proxy.admin.pages.assets import address, assets
from tests.proxy.admin.conftest import Office
from tests.support.caller import call

ROOT = Path(__file__).parents[4]


def test_every_file_of_the_page_is_packed() -> None:
    """`package-data` covers whatever stands in templates and static."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packed = settings["tool"]["setuptools"]["package-data"]["*"]
    folders = ("templates", "static")
    there = [one for name in folders for one in (ROOT / "proxy/admin" / name).rglob("*.*")]
    assert len(there) > 20
    assert [one.name for one in there if not any(fnmatch(one.name, kind) for kind in packed)] == []


@pytest.mark.parametrize("name", sorted(assets()))
async def test_a_file_is_given_for_good_under_its_own_version(office: Office, name: str) -> None:
    """To anybody, as what it is; under another version it is not there."""
    place = address(name)
    given = await call(office.up.url, "GET", place)
    assert (given.status, given.body) == (200, assets()[name].octets)
    assert given.header("content-type") == assets()[name].kind
    assert given.header("cache-control") == "public, max-age=31536000, immutable"
    other = place.replace(assets()[name].version, "0" * 12)
    assert (await call(office.up.url, "GET", other)).status == 404


async def test_nothing_else_is_given(office: Office) -> None:
    """No path leads out of the folder."""
    [version] = {assets()["page.js"].version}
    for name in ("../pages/board.py", "%2e%2e/pages/board.py", "", "page.JS"):
        answer = await call(office.up.url, "GET", f"/admin/static/{version}/{name}")
        assert answer.status in (400, 404)
        assert b"Board" not in answer.body
