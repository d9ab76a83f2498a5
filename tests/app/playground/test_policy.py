"""What a page must never do, even where something has got into it."""

import pytest
from playwright.sync_api import Error

from tests.app.playground.visit import Visit


def test_the_policy_stops_what_a_hole_would_let_in(visit: Visit) -> None:
    page = visit.open()
    for attack in (
        "fetch('http://127.0.0.2:9/').catch(() => 0)",
        "document.body.append(Object.assign(new Image(), {src: 'http://127.0.0.2:9/'}))",
        "document.body.setAttribute('style', 'color: red')",
    ):
        with page.expect_console_message(lambda message: message.type == "error") as heard:
            page.evaluate(attack)
        assert "Content Security Policy" in heard.value.text
    for attack in (
        "document.body.innerHTML = '<b>'",
        "document.createElement('script').src = 'data:text/javascript,'",
        "document.createElement('script').textContent = 'alert(1)'",
    ):
        with pytest.raises(Error, match="Trusted"):
            page.evaluate(attack)
    visit.problems.clear()
