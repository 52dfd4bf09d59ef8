"""Every row of the table of SDKs."""

from __future__ import annotations

from tests.scenarios.sdks.language import LANGUAGE
from tests.scenarios.sdks.openai_rows import OPENAI
from tests.scenarios.sdks.others import OTHERS

SDKS = (*OPENAI, *LANGUAGE, *OTHERS)
