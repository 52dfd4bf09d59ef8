"""A backend in Flask that holds no key: keyrelay sends the right one along with every call.

Set up, once (any port will do; a key goes only to the paths that you register):

    pip install flask openai httpx
    keyrelay backend add http://127.0.0.1:9000/ask --service openai
    keyrelay backend add http://127.0.0.1:9000/geocode --service google-maps

Run (Flask's own server is for trying things out; in production use gunicorn or waitress):

    PORT=9000 python examples/flask_backend.py

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

import httpx
from flask import Flask, Response, abort, request
from openai import APIStatusError, OpenAI

OPENAI_BASE_URL = os.environ.get("OPENAI_BASE_URL", "https://api.openai.com/v1")
OPENAI_MODEL = os.environ.get("OPENAI_MODEL", "gpt-4o-mini")
MAPS_BASE_URL = os.environ.get("MAPS_BASE_URL", "https://maps.googleapis.com")

# httpx logs whole URLs, and Google's geocoding wants its key in one.
logging.getLogger("httpx").setLevel(logging.WARNING)

app = Flask(__name__)
openai = OpenAI(base_url=OPENAI_BASE_URL, api_key="comes with each call")
maps = httpx.Client(base_url=MAPS_BASE_URL)


@app.post("/ask")
def ask() -> dict[str, str | None]:
    """Answers a question with the key that came with it, in the header that OpenAI would read."""
    if request.authorization is None or not request.authorization.token:
        abort(401)
    completion = openai.with_options(api_key=request.authorization.token).chat.completions.create(
        model=OPENAI_MODEL,
        messages=[{"role": "user", "content": request.json["question"]}],
    )
    return {"answer": completion.choices[0].message.content}


@app.get("/geocode")
def geocode() -> Response:
    """Finds an address; Google's key always arrives as x-goog-api-key, and goes on as `?key=`."""
    key = request.headers.get("x-goog-api-key") or abort(401)
    address = request.args["address"]
    found = maps.get("/maps/api/geocode/json", params={"address": address, "key": key})
    return Response(found.content, found.status_code, mimetype="application/json")


@app.errorhandler(APIStatusError)
def pass_on(error: APIStatusError) -> tuple[dict[str, object], int]:
    """OpenAI's own refusal, with its status."""
    return {"error": error.body}, error.status_code


if __name__ == "__main__":
    app.run(host="127.0.0.1", port=int(os.environ.get("PORT", "9000")))
