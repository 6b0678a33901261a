"""The record loop."""

import pytest

pytest.register_assert_rewrite("tests.stream.stage")
