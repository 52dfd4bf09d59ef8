"""Real SDKs as rows of one table, and how to compare what they send."""

import pytest

pytest.register_assert_rewrite("tests.scenarios.sdks.stage")
