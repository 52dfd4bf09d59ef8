"""Loaded by every Python that a test starts: keyrelay's own processes are watched from within."""

import importlib.util
import os
import sys
from pathlib import Path

REPORTS = os.environ.get("RELAY_TESTS_REPORTS")
OURS = "proxy.cli" in sys.orig_argv or any(word.endswith("/keyrelay") for word in sys.orig_argv[:2])

if REPORTS and OURS:
    place = Path(__file__).parent.parent / "dials.py"
    spec = importlib.util.spec_from_file_location("watched_dials", place)
    assert spec is not None and spec.loader is not None
    dials = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(dials)
    dials.begin(Path(REPORTS), strict=True)
