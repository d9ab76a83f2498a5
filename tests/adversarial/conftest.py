"""Fixtures of the attacks."""

from tests.app.conftest import _no_settings_from_outside, _plain_logs

__all__ = ["_no_settings_from_outside", "_plain_logs"]
