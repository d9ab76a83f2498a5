"""What holds for every answer, whatever was asked."""

import json

import httpx

from tests.app.answers import check_error

REFUSALS = frozenset({400, 403, 406, 412, 413, 415, 422})


def check_any_answer(answer: httpx.Response) -> None:
    """Assert that an answer is vectors, or a refusal in the one error shape; never a 5xx."""
    assert answer.headers["content-type"] == "application/json"
    if answer.status_code == 200:
        content = json.loads(answer.content, parse_constant=_refuse_constant)
        assert content["usage"]["images"] == len(content["data"]) > content["usage"]["failed"]
        return
    assert answer.status_code in REFUSALS, answer.text
    error = answer.json()["error"]
    check_error(answer, answer.status_code, error["code"], error["param"])


def _refuse_constant(name: str) -> None:
    raise AssertionError(f"{name} is no JSON")
