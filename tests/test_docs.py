"""What the documentation says is so: commands, settings, links, lists, and the first call."""

from __future__ import annotations

import ast
import asyncio
import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import click
import pytest
import yaml
from click import Command, Context, Group

from bench import guards
from proxy import catalogue
from proxy.cli import COMMANDS, keyrelay
from proxy.config.model import Cache, HealthChecks, Limits, Server
from proxy.config.section import Section
from proxy.config.usage import Usage
from proxy.services import load_services, table
from tests.supply import licences
from tests.support.process import environment, served
from tests.support.process import keyrelay as run_keyrelay
from tests.support.programs import need
from tests.test_architecture import FLOORS

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "examples/README.md", *sorted(ROOT.glob("docs/*.md"))]
SECTIONS: dict[str, type[Section]] = {
    "server": Server,
    "cache": Cache,
    "limits": Limits,
    "usage": Usage,
    "health": HealthChecks,
}
EXAMPLE = ROOT / "keys.example.yaml"

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
VARIABLE = re.compile(r"\bKEYRELAY_[A-Z_]*[A-Z]\b")

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def fences(page: Path, *languages: str) -> list[str]:
    return [text for word, text in FENCE.findall(page.read_text()) if word in languages]


def spans(page: Path) -> list[str]:
    return SPAN.findall(FENCE.sub("", page.read_text()))


def cells(text: str) -> Iterator[list[str]]:
    """The rows of Markdown tables."""
    for line in text.splitlines():
        if line.startswith("|") and not line.startswith("|--"):
            yield [cell.strip() for cell in line.strip("|").split(" | ")]


# Links and snippets.


def anchors(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text()), re.MULTILINE)
    plain = (re.sub(r"[^\w\- ]", "", title.lower()) for title in titles)
    return {title.replace(" ", "-") for title in plain}


@pages
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    """To a file or folder of the project, and to a heading that is there."""
    broken = []
    for link in LINK.findall(FENCE.sub("", page.read_text())):
        parts = urlsplit(link)
        if parts.scheme:
            continue
        there = (page.parent / parts.path).resolve() if parts.path else page
        if not there.exists() or (parts.fragment and parts.fragment not in anchors(there)):
            broken.append(link)
    assert broken == []


@pages
def test_every_snippet_is_well_formed(page: Path) -> None:
    """Python compiles, JSON and YAML load."""
    for snippet in fences(page, "python"):
        compile(snippet, str(page), "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    for snippet in fences(page, "json"):
        json.loads(snippet)
    for snippet in fences(page, "yaml"):
        yaml.safe_load(snippet)


# The command line.


def command_lines(page: Path) -> Iterator[str]:
    """Every `keyrelay ...`, in a shell's block, between backticks or in a problem's sentence."""
    text = page.read_text()
    for block in fences(page, "sh"):
        lines = (line.strip().removeprefix(".venv/bin/") for line in block.splitlines())
        yield from (line for line in lines if line.startswith("keyrelay "))
    for span in SPAN.findall(FENCE.sub("", text)):
        if span.startswith("keyrelay ") and span != "keyrelay COMMAND --help":
            yield span


def words(line: str) -> list[str]:
    """The words for keyrelay: without the shell's own and the brackets of what may be left out."""
    plain = line.replace("[", "").replace("]", "")
    found = shlex.split(plain, comments=True)[1:]
    shells = [place for place, word in enumerate(found) if word in ("<", ">", "|", "&&", ";")]
    return found[: min(shells, default=len(found))]


def read(line: str) -> tuple[Command, list[str]]:
    """The command that a line runs, and the words behind its name."""
    rest = words(line)
    command: Command = keyrelay
    while isinstance(command, Group) and rest and not rest[0].startswith("-"):
        found = command.get_command(Context(command), rest[0])
        assert found is not None, f"{line}: there is no {rest[0]}"
        command, rest = found, rest[1:]
    return command, rest


def options(command: Command) -> dict[str, click.Option]:
    here = [param for param in command.params if isinstance(param, click.Option)]
    return {name: param for param in here for name in param.opts}


def check(line: str) -> None:
    command, rest = read(line)
    known = options(command) | {"--help": click.Option(["--help"], is_flag=True)}
    plain = 0
    while rest:
        word, *rest = rest
        if not word.startswith("--"):
            plain += 1
            continue
        assert word in known, f"{line}: there is no {word}"
        rest = rest if known[word].is_flag else rest[1:]
    places = [param for param in command.params if isinstance(param, click.Argument)]
    assert plain <= len(places), f"{line}: too many words"


@pages
def test_every_command_line_can_be_typed(page: Path) -> None:
    """The command, its options and as many arguments are there."""
    for line in command_lines(page):
        check(line)


def test_the_contract_has_every_command() -> None:
    """Section 8: each command and subcommand, with options that are there."""
    section = (ROOT / "docs/contract.md").read_text().split("\n## ")[8]
    listed = set()
    for cell, _ in list(cells(section))[1:]:
        first, *others = (span.split() for span in SPAN.findall(cell))
        check("keyrelay " + " ".join(first))
        group, _ = read("keyrelay " + first[0])
        listed |= {first[0]}
        if isinstance(group, Group):
            named = {first[1], *(other[0] for other in others)}
            assert named == set(group.commands), first[0]
    assert listed == set(COMMANDS)


# Settings and variables.


def test_every_setting_that_is_named_exists() -> None:
    """`server.x`, `cache.x` and `limits.x` are settings, or files of the data directory."""
    wrong = [
        f"{page.name}: {span}"
        for page in PAGES
        for span in spans(page)
        if (found := re.match(r"(server|cache|limits|usage|health)\.([a-z_]+)", span))
        and found[2] not in {*SECTIONS[found[1]].model_fields, "db", "py"}
    ]
    assert wrong == []


def test_every_setting_is_in_the_example() -> None:
    """keys.example.yaml has each setting, and none that isn't there."""
    example = yaml.safe_load(EXAMPLE.read_text())
    for name, model in SECTIONS.items():
        assert set(example[name]) == set(model.model_fields)


def test_the_variables_are_those_of_the_code() -> None:
    """The README has each variable that is read, and no page one that isn't."""
    code = [*ROOT.glob("proxy/**/*.py"), *ROOT.glob("vault/**/*.py")]
    used = set(VARIABLE.findall(" ".join(path.read_text() for path in code)))
    examples = {name for path in ROOT.glob("examples/**/*") for name in variables(path)}
    named = {name for page in PAGES for name in variables(page)}
    assert used <= set(variables(ROOT / "README.md"))
    assert named <= used | examples


def variables(path: Path) -> list[str]:
    wanted = path.suffix in (".md", ".py", ".html", ".yaml")
    return VARIABLE.findall(path.read_text()) if wanted else []


# Lists.


@pytest.mark.parametrize(
    ("name", "made"),
    [
        ("docs/services.md", lambda: table.document(load_services())),
        ("docs/errors.md", catalogue.document),
        ("docs/licences.md", licences.document),
    ],
)
def test_generated_pages_are_current(name: str, made: object) -> None:
    """`make docs` writes them anew."""
    assert callable(made)
    assert (ROOT / name).read_text() == made()
    assert f"> {name}" in (ROOT / "Makefile").read_text()


def test_the_readme_counts_the_services() -> None:
    """As many as there are."""
    [number] = re.findall(r"(\d+) services are known by name", (ROOT / "README.md").read_text())
    assert int(number) == len(load_services().all)


def test_every_dependency_has_its_reason() -> None:
    """The table holds what pyproject.toml asks for, and nothing else."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = {re.split(r"[\[>=; ]", one)[0] for one in project["dependencies"]}
    rows = list(cells((ROOT / "docs/dependencies.md").read_text()))[1:]
    assert {row[0] for row in rows} == asked
    assert [row[0] for row in rows if not row[1]] == []


# The house.


def test_the_map_has_every_file() -> None:
    """Each module and package of proxy and vault, and none that is gone."""
    house = (ROOT / "docs/house.md").read_text()
    listed: set[str] = set()
    folders = {0: ""}
    for line in house.split("## The map")[1].split("```")[1].splitlines():
        indent = len(line) - len(line.lstrip())
        head = line[:23] if "  " in line.strip() else line
        for name in re.findall(r"[\w.]+/|\w+\.(?:py|yaml)", head):
            if name.endswith("/"):
                folders[indent + 2] = folders[indent] + name
                listed.add(folders[indent + 2])
            else:
                listed.add(folders[indent] + name)
    there = {
        str(path.relative_to(ROOT))
        for name in ("proxy", "vault")
        for path in [*ROOT.glob(f"{name}/**/*.py"), *ROOT.glob(f"{name}/**/*.yaml")]
        if "migrations" not in path.parts and path != ROOT / "proxy/__init__.py"
    }
    assert {name for name in listed if name.endswith((".py", ".yaml"))} == there
    assert [name for name in listed if not (ROOT / name).exists()] == []


def test_the_floors_are_those_that_are_held() -> None:
    """The table of the page is the table of the test."""
    section = (ROOT / "docs/house.md").read_text().split("## Floors")[1].split("\n## ")[0]
    by_floor: dict[int, set[str]] = {}
    for name, floor in FLOORS.items():
        by_floor.setdefault(floor, set()).add(name.removeprefix("proxy."))
    listed = [set(rooms.split(", ")) for _, rooms in list(cells(section))[1:]]
    assert listed == [by_floor[floor] for floor in sorted(by_floor)]


def test_the_spine_is_shown_as_it_is() -> None:
    """Without its docstring."""
    [shown] = fences(ROOT / "docs/house.md", "python")
    tree = ast.parse((ROOT / "proxy/gateway.py").read_text())
    spine = next(node for node in ast.walk(tree) if isinstance(node, ast.AsyncFunctionDef))
    del spine.body[0]
    assert ast.dump(ast.parse(shown).body[0]) == ast.dump(spine)


# The first call.


async def connected(url: str) -> None:
    """Returns when somebody accepts connections there."""
    parts = urlsplit(url)
    async with asyncio.timeout(20):
        while True:
            try:
                _, writer = await asyncio.open_connection(parts.hostname, parts.port)
            except OSError:
                await asyncio.sleep(0.02)
            else:
                writer.close()
                return


async def pasted(command: str, folder: Path) -> str:
    """What a shell prints in a folder."""
    process = await asyncio.create_subprocess_exec(
        "bash",
        "-c",
        command,
        cwd=folder,
        stdout=asyncio.subprocess.PIPE,
        env=environment(),
    )
    async with asyncio.timeout(30):
        out, _ = await process.communicate()
    assert process.returncode == 0
    return out.decode()


def cache_status(answer: str) -> str:
    [found] = re.findall(r"^cache-status: (.*?)\r?$", answer, re.MULTILINE | re.IGNORECASE)
    return str(found)


async def test_the_first_call_of_the_readme_works(tmp_path: Path) -> None:
    """Pasted twice into a shell beside a fresh demo: a miss, then a hit with the same answer."""
    need("curl")
    command = next(block for block in fences(ROOT / "README.md", "sh") if "curl" in block)
    async with served(tmp_path / "data", "--demo") as up:
        listed = await run_keyrelay(tmp_path / "data/demo", "backend", "list", "--json")
        backend = urlsplit(json.loads(listed.out)[0]["url"]).netloc
        await connected(up.url)
        await connected(f"http://{backend}")
        own = command.replace("http://127.0.0.1:8000", up.url).replace("127.0.0.1:8001", backend)
        first, second = [await pasted(own, tmp_path) for _ in range(2)]
    assert re.fullmatch(
        r"keyrelay; fwd=uri-miss; fwd-status=200; stored; ttl=\d+", cache_status(first)
    )
    assert re.fullmatch(r"keyrelay; hit; ttl=\d+", cache_status(second))
    assert '"call":1' in first
    assert '"call":1' in second
    kept = set(SPAN.findall((ROOT / "docs/contract.md").read_text().split("\n## ")[9]))
    files = {path.name for path in (tmp_path / "data/demo").iterdir()} - {"demo-token"}
    assert files <= kept | {
        *("cache.db-wal", "cache.db-shm", "cache.db.lock"),
        *("usage.db-wal", "usage.db-shm", "usage.db.lock"),
    }


def test_the_cost_of_the_guards_is_what_was_measured() -> None:
    """The table is the one that the bench made of its figures; every kind of guard has a row."""
    rows = json.loads((ROOT / "bench/results/guards.json").read_text())
    assert guards.table(rows) in (ROOT / "docs/SECURITY.md").read_text()
    assert {row["when"] for row in rows.values()} == {"", *guards.WHEN}


NAMED = re.compile(r"(tests/[\w/]+\.(?:py|c))(?:::(test_\w+))?")
NO_PROMISE = {"To report a fault"}


def test_every_promise_names_the_test_that_holds_it() -> None:
    """In docs/SECURITY.md, each under its heading; and all that is named is there."""
    page = (ROOT / "docs/SECURITY.md").read_text()
    parts = {part.partition("\n")[0]: SPAN.findall(part) for part in page.split("\n## ")[1:]}
    named = {title: [NAMED.fullmatch(span) for span in found] for title, found in parts.items()}
    bare = {title for title, found in named.items() if not any(found)}
    assert bare == NO_PROMISE
    for found in (one for several in named.values() for one in several if one):
        assert (ROOT / found[1]).is_file(), found[1]
        assert not found[2] or f"def {found[2]}(" in (ROOT / found[1]).read_text(), found[0]
    meant = [span for found in parts.values() for span in found if span.startswith("tests/")]
    assert [one for one in meant if not NAMED.fullmatch(one)] == ["tests/"]
