"""docs/sdks.md by measuring: `python -m tests.scenarios.sdk_table > docs/sdks.md`."""

from __future__ import annotations

import asyncio
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

from tests.scenarios.sdks.forms import FORMS, Form, offered, survives
from tests.scenarios.sdks.npm_rows import NODE, NPM
from tests.scenarios.sdks.row import Sdk
from tests.scenarios.sdks.stage import Stage, stage
from tests.scenarios.sdks.table import SDKS

Verdict = Callable[[Sdk, Form], str]

INTRODUCTION = """\
# SDKs

Every row is one call of a real SDK. The tests make it twice, once directly and once through
keyrelay, and compare what the provider receives: the credential's slot and form, path, query,
fields and body are the same, and the platform token is nowhere. The table is written by

    python -m tests.scenarios.sdk_table > docs/sdks.md

## How to tell an SDK

Give it the path form as its base URL and the platform token as its API key:

| package | in code |
|---|---|
{how}

- **googlemaps** checks the shape of its key: give it any well-formed one, and the token in
  `X-Relay-Token`.
- **firecrawl-py**: the blocking client of its newer API keeps nothing of the base URL but the host.
  Use `AsyncFirecrawl`, or `Firecrawl(...).v1`.
- **anthropic** and **@anthropic-ai/sdk** send the key as `Authorization: Bearer` from API version
  2026-10-21 on, and as `x-api-key` before. keyrelay does as the caller's version does.
- **replicate**, **assemblyai**, **stripe** (asynchronous), and the asynchronous clients of
  **tavily-python**, **exa-py** and **firecrawl-py** follow no redirects; the others do, and stay
  with keyrelay.
- URLs in answers (a prediction's `urls.stream`, say) lead to the provider itself: they are not
  rewritten, and a client that follows one has no key there.

## The table

**yes**: the provider sees the same call. **told**: this client drops what keyrelay must know from
its base URL, which is refused with a sentence that says so. Empty: the client has no such option.
The forms, with `T` for a time in unix seconds:

{forms}

"""

HOW = {
    "openai": 'OpenAI(base_url=f"{RELAY}/proxy/openai/v1", api_key=TOKEN)',
    "anthropic": 'Anthropic(base_url=f"{RELAY}/proxy/anthropic", api_key=TOKEN)',
    "google-genai": ('Client(api_key=TOKEN, http_options={"base_url": f"{RELAY}/proxy/gemini"})'),
    "mistralai": 'Mistral(server_url=f"{RELAY}/proxy/mistral", api_key=TOKEN)',
    "cohere": 'ClientV2(base_url=f"{RELAY}/proxy/cohere", api_key=TOKEN)',
    "groq": 'Groq(base_url=f"{RELAY}/proxy/groq", api_key=TOKEN)',
    "together": 'Together(base_url=f"{RELAY}/proxy/together/v1", api_key=TOKEN)',
    "replicate": 'Client(base_url=f"{RELAY}/proxy/replicate", api_token=TOKEN)',
    "elevenlabs": 'ElevenLabs(base_url=f"{RELAY}/proxy/elevenlabs", api_key=TOKEN)',
    "deepgram-sdk": (
        "DeepgramClient(api_key=TOKEN, environment=DeepgramClientEnvironment(base=BASE,"
        ' production=BASE, agent=BASE, agent_rest=BASE))` with `BASE = f"{RELAY}/proxy/deepgram"'
    ),
    "assemblyai": 'Settings(base_url=f"{RELAY}/proxy/assemblyai", api_key=TOKEN)',
    "tavily-python": 'TavilyClient(TOKEN, api_base_url=f"{RELAY}/proxy/tavily")',
    "exa-py": ('Exa(TOKEN, base_url=f"{RELAY}/proxy/exa")`, `AsyncExa(TOKEN, api_base=...)'),
    "firecrawl-py": 'AsyncFirecrawl(TOKEN, api_url=f"{RELAY}/proxy/firecrawl")',
    "stripe": 'StripeClient(TOKEN, base_addresses={"api": f"{RELAY}/proxy/stripe"})',
    "googlemaps": (
        'Client(key=ANY_KEY, base_url=f"{RELAY}/proxy/googlemaps",'
        ' requests_kwargs={"headers": {"X-Relay-Token": TOKEN}})'
    ),
    "npm openai": "new OpenAI({baseURL: `${RELAY}/proxy/openai/v1`, apiKey: TOKEN})",
    "npm @anthropic-ai/sdk": (
        "new Anthropic({baseURL: `${RELAY}/proxy/anthropic`, apiKey: TOKEN})"
    ),
}


def expected(sdk: Sdk, form: Form) -> str:
    """What a cell says when all is well."""
    if not offered(sdk, form):
        return ""
    return "yes" if survives(sdk, form) else "told"


def document(verdict: Verdict) -> str:
    """The whole page, as Markdown."""
    how = "\n".join(f"| {package} | {_code(line)} |" for package, line in HOW.items())
    forms = "\n".join(f"{place}. `{name}`" for place, name in enumerate(FORMS, 1))
    return INTRODUCTION.format(how=how, forms=forms) + "".join(_lines(verdict))


def _code(line: str) -> str:
    """A line with backticks of its own is fenced by two (CommonMark, code spans)."""
    return f"`` {line} ``" if "${" in line else f"`{line}`"


def _lines(verdict: Verdict) -> list[str]:
    places = range(1, len(FORMS) + 1)
    lines = [f"| call | release | {' | '.join(map(str, places))} |\n"]
    lines.append("|---|---|" + "---|" * len(FORMS) + "\n")
    for title, rows in (("", SDKS), ("npm ", NPM)):
        for sdk in rows:
            cells = " | ".join(verdict(sdk, form) for form in FORMS.values())
            lines.append(f"| {title}{sdk.name} | {sdk.version} | {cells} |\n")
    return lines


async def _measure(on: Stage, sdk: Sdk, form: Form) -> str:
    should = expected(sdk, form)
    try:
        if should:
            await (on.judge if should == "yes" else on.judge_refusal)(sdk, form)
    except (Exception, BaseExceptionGroup) as failure:
        print(f"{sdk.name}: {failure!r}", file=sys.stderr)
        return "**FAIL**"
    return should


async def measured() -> Verdict:
    """Runs every cell, one after the other."""
    found: dict[tuple[int, Form], str] = {}
    for rows in (SDKS, NPM):
        with tempfile.TemporaryDirectory() as folder:
            async with NODE, stage(Path(folder) / "data", rows) as on:
                for sdk in rows:
                    for form in FORMS.values():
                        found[id(sdk), form] = await _measure(on, sdk, form)
    return lambda sdk, form: found[id(sdk), form]


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    page = document(asyncio.run(measured()))
    sys.stdout.write(page)
    sys.exit("FAIL" in page)
