"""A backend in FastAPI that holds no key: keyrelay sends the right one along with every call.

Set up, once (any port will do; a key goes only to the paths that you register):

    pip install fastapi uvicorn openai httpx
    keyrelay backend add http://127.0.0.1:9000/ask --service openai
    keyrelay backend add http://127.0.0.1:9000/geocode --service google-maps

Run:

    PORT=9000 python examples/fastapi_backend.py

Call it through keyrelay, with a platform token and nothing else:

    curl -H "Authorization: Bearer $KEYRELAY_TOKEN" \\
      'http://127.0.0.1:8000/proxy?server=http://127.0.0.1:9000/ask&service=openai' \\
      -H 'Content-Type: application/json' -d '{"question": "What is a relay?"}'

    curl -H "Authorization: Bearer $KEYRELAY_TOKEN" --get http://127.0.0.1:8000/proxy \\
      -d service=google-maps --data-urlencode 'server=http://127.0.0.1:9000/geocode?address=Berlin'

OPENAI_BASE_URL, OPENAI_MODEL and MAPS_BASE_URL may point elsewhere.
"""

import logging
import os
from typing import Annotated

import httpx
import uvicorn
from fastapi import Depends, FastAPI, Request, Response
from fastapi.responses import JSONResponse
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer
from openai import APIStatusError, AsyncOpenAI
from pydantic import BaseModel

OPENAI_BASE_URL = os.environ.get("OPENAI_BASE_URL", "https://api.openai.com/v1")
OPENAI_MODEL = os.environ.get("OPENAI_MODEL", "gpt-4o-mini")
MAPS_BASE_URL = os.environ.get("MAPS_BASE_URL", "https://maps.googleapis.com")

# httpx logs whole URLs, and Google's geocoding wants its key in one.
logging.getLogger("httpx").setLevel(logging.WARNING)

app = FastAPI()
openai = AsyncOpenAI(base_url=OPENAI_BASE_URL, api_key="comes with each call")
maps = httpx.AsyncClient(base_url=MAPS_BASE_URL)

# Where keyrelay puts the key: the header that the provider's own API would read, and for Google
# always x-goog-api-key.
OpenAIKey = Annotated[HTTPAuthorizationCredentials, Depends(HTTPBearer())]
GoogleKey = Annotated[str, Depends(APIKeyHeader(name="x-goog-api-key"))]


class Question(BaseModel):
    question: str


@app.post("/ask")
async def ask(asked: Question, key: OpenAIKey) -> dict[str, str | None]:
    """Answers a question with the key that came with it."""
    completion = await openai.with_options(api_key=key.credentials).chat.completions.create(
        model=OPENAI_MODEL,
        messages=[{"role": "user", "content": asked.question}],
    )
    return {"answer": completion.choices[0].message.content}


@app.get("/geocode")
async def geocode(address: str, key: GoogleKey) -> Response:
    """Finds an address; the key arrives as a header and goes on as `?key=`."""
    found = await maps.get("/maps/api/geocode/json", params={"address": address, "key": key})
    return Response(found.content, found.status_code, media_type="application/json")


@app.exception_handler(APIStatusError)
async def pass_on(_: Request, error: APIStatusError) -> JSONResponse:
    """OpenAI's own refusal, with its status."""
    return JSONResponse({"error": error.body}, error.status_code)


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ.get("PORT", "9000")))
