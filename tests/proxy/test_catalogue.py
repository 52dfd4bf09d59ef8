"""The catalogue of errors: complete, true, and what SDKs make of it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import anthropic
import httpx
import openai
import pytest
from google.genai import errors as google_errors

from proxy.catalogue import ADVICE, CATALOGUE, document, given, sdk_exceptions
from proxy.errors import KeyMissing, RelayError
from proxy.problems import problem

ROOT = Path(__file__).parent.parent.parent
ABOUT_ERRORS = {"errors.py", "catalogue.py"}
STATUSES = sorted({kind.status for kind in given()})


def subclasses(kind: type[RelayError]) -> Iterator[type[RelayError]]:
    for one in kind.__subclasses__():
        if one.__module__ == "proxy.errors":
            yield one
            yield from subclasses(one)


def test_every_error_is_in_the_catalogue_once() -> None:
    """No class and no code is forgotten, or there twice."""
    codes = [kind.code for kind in CATALOGUE]
    assert set(subclasses(RelayError)) == set(CATALOGUE) == set(ADVICE)
    assert len(set(codes)) == len(codes) == len(CATALOGUE)


def test_only_what_is_given_is_promised() -> None:
    """Each error stands in a room that gives it."""
    rooms = [path for path in ROOT.glob("proxy/**/*.py") if path.name not in ABOUT_ERRORS]
    words = set(re.findall(r"\w+", " ".join(path.read_text() for path in rooms)))
    assert [kind.code for kind in given() if kind.__name__ not in words] == []


def test_the_page_has_every_error() -> None:
    """One row for each, with its status; none for anything else."""
    rows = re.findall(r"^\| (\d{3}) \| `([a-z_]+)` \|", document(), re.MULTILINE)
    wanted = [(str(kind.status), kind.code) for kind in given()]
    assert rows == wanted


def test_the_page_shows_an_error_as_it_comes() -> None:
    """The example is what a caller gets."""
    [example] = re.findall(r"```json\n(.*?)```", document(), re.DOTALL)
    sentence = "There is no key for openai yet; add one with: keyrelay key add openai"
    answer = problem(KeyMissing(sentence, param="service"), "4a1f...", "/proxy")
    assert json.loads(example) == json.loads(answer.body)


@pytest.mark.parametrize("status", STATUSES)
def test_the_sdks_raise_what_the_page_says(status: int) -> None:
    """The names come from the SDKs themselves."""
    request = httpx.Request("POST", "http://relay.test/proxy/x")
    answer = httpx.Response(status, json={"error": {"message": "m"}}, request=request)
    raised = (
        type(openai.OpenAI(api_key="k")._make_status_error("m", body=None, response=answer)),
        type(anthropic.Anthropic(api_key="k")._make_status_error("m", body=None, response=answer)),
        _google(answer),
    )
    assert tuple(kind.__name__ for kind in raised) == sdk_exceptions(status)


def _google(answer: httpx.Response) -> type[Exception]:
    with pytest.raises(google_errors.APIError) as failure:
        google_errors.APIError.raise_for_response(answer)
    return failure.type
