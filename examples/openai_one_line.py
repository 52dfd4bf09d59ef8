"""The OpenAI SDK through keyrelay: one line is new, and the token stands where the API key stood.

Run:

    pip install openai
    export OPENAI_API_KEY=kr_...       # a platform token
    python examples/openai_one_line.py

KEYRELAY_URL and OPENAI_MODEL may say something else than below.
"""

import os

from openai import OpenAI

KEYRELAY_URL = os.environ.get("KEYRELAY_URL", "http://127.0.0.1:8000")

client = OpenAI(
    base_url=f"{KEYRELAY_URL}/proxy/openai/v1",  # the new line
)

completion = client.chat.completions.create(
    model=os.environ.get("OPENAI_MODEL", "gpt-4o-mini"),
    messages=[{"role": "user", "content": "What is a relay? One sentence."}],
)
print(completion.choices[0].message.content)
