"""Fixtures of the attacks."""

from tests.app.conftest import _plain_logs

__all__ = ["_plain_logs"]
