"""A backend that calls OpenAI through keyrelay again, with the key that keyrelay just gave it.

The caller asks this backend through keyrelay; the backend asks OpenAI through keyrelay. It needs no
token of its own: the key that it received is its credential, good for OpenAI's own hosts only. So
its calls are cached too, and two callers with the same question cost one answer.

Set up, once:

    pip install fastapi uvicorn openai
    keyrelay backend add http://127.0.0.1:9000/ask --service openai

Run:

    KEYRELAY_URL=http://127.0.0.1:8000 PORT=9000 python examples/nested_backend.py

Call it:

    curl -H "Authorization: Bearer $KEYRELAY_TOKEN" --get http://127.0.0.1:8000/proxy \\
      -d service=openai --data-urlencode 'server=http://127.0.0.1:9000/ask?question=Why?'
"""

import os
import time
from typing import Annotated

import uvicorn
from fastapi import Depends, FastAPI, Request
from fastapi.responses import JSONResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from openai import APIStatusError, AsyncOpenAI

KEYRELAY_URL = os.environ.get("KEYRELAY_URL", "http://127.0.0.1:8000")
OPENAI_MODEL = os.environ.get("OPENAI_MODEL", "gpt-4o-mini")
KEEP_SECONDS = 3600

app = FastAPI()
openai = AsyncOpenAI(api_key="comes with each call")
Key = Annotated[HTTPAuthorizationCredentials, Depends(HTTPBearer())]


@app.get("/ask")
async def ask(question: str, key: Key) -> dict[str, str | None]:
    """Answers a question; equal ones are answered from keyrelay's cache for an hour."""
    until = int(time.time()) + KEEP_SECONDS
    through_keyrelay = openai.with_options(
        base_url=f"{KEYRELAY_URL}/proxy/openai/cache={until}/-/v1",
        api_key=key.credentials,
    )
    completion = await through_keyrelay.chat.completions.create(
        model=OPENAI_MODEL,
        messages=[{"role": "user", "content": question}],
    )
    return {"answer": completion.choices[0].message.content}


@app.exception_handler(APIStatusError)
async def pass_on(_: Request, error: APIStatusError) -> JSONResponse:
    """OpenAI's own refusal or keyrelay's, with its status."""
    return JSONResponse({"error": error.body}, error.status_code)


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ.get("PORT", "9000")))
