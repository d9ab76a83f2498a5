"""What holds for every answer, whatever was asked."""

import json

import httpx

from tests.app.answers import check_error

REFUSALS = frozenset({400, 403, 406, 412, 413, 415, 422})


def check_any_answer(answer: httpx.Response) -> None:
    """Assert that an answer has vectors or is a refusal in the one error shape; never a 5xx."""
    assert answer.headers["content-type"] == "application/json"
    if answer.status_code == 200:
        content = json.loads(answer.content, parse_constant=refuse_constant)
        items = content["data"]
        failed = [item for item in items if "error" in item]
        assert content["usage"] == {"images": len(items), "failed": len(failed)}
        assert all({"embedding", "patches"} & item.keys() for item in items if item not in failed)
        return
    assert answer.status_code in REFUSALS, answer.text
    error = answer.json()["error"]
    check_error(answer, answer.status_code, error["code"], error["param"])


def refuse_constant(name: str) -> None:
    """Refuse what Python reads as JSON and is none: NaN and infinities."""
    raise AssertionError(f"{name} is no JSON")
