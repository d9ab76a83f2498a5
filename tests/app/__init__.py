"""Tests of the service; they mirror app/."""

import pytest

pytest.register_assert_rewrite("tests.app.answers")
