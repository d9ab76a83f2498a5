"""Options of a request that come twice, as made clients and pages send them."""

import base64
from typing import Any

import httpx
import pytest

from tests.app.answers import check_error
from tests.app.fake_embedder import SPACE
from tests.app.images import plain_png
from tests.app.service_server import ServiceServer

PNG = plain_png((10, 20, 30))
PLACES = ["query", "form", "json"]
# An option in the query, and its value as another client spells it.
ONE_VALUE: list[tuple[str, str, Any]] = [
    ("output", "both", "both"),
    ("normalize", "false", False),
    ("normalize", "True", 1),
    ("encoding", "base64", "base64"),
    ("dtype", "float32", "float32"),
    ("on_error", "partial", "partial"),
    ("expect_space", SPACE, SPACE),
]
TWO_VALUES: list[tuple[str, str, Any]] = [
    ("output", "both", "pooled"),
    ("normalize", "false", True),
    ("normalize", "1", "0"),
    ("encoding", "base64", "float"),
    ("dtype", "float32", "float16"),
    ("on_error", "partial", "fail"),
    ("expect_space", SPACE, f"{SPACE}x"),
]


def ask(server: ServiceServer, place: str, name: str, values: list[Any]) -> httpx.Response:
    """Embed an image with an option's first value in the query, the others in one of PLACES."""
    in_query, *others = values
    url = f"/embed?{name}={in_query}"
    if place == "query":
        url += "".join(f"&{name}={other}" for other in others)
        return server.client.post(url, content=PNG, headers={"Content-Type": "image/png"})
    if place == "form":
        files = {"images": ("a.png", PNG)}
        return server.client.post(url, files=files, data={name: [str(other) for other in others]})
    text = base64.b64encode(PNG).decode()
    return server.client.post(url, json={"images": [text], **dict.fromkeys([name], *others)})


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(("name", "value", "same"), ONE_VALUE)
def test_given_twice_with_one_value_it_is_given_once(
    server: ServiceServer, place: str, name: str, value: str, same: Any
) -> None:
    once = ask(server, "query", name, [value])
    twice = ask(server, place, name, [value, same])

    assert twice.status_code == 200, twice.text
    assert twice.content == once.content


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(("name", "value", "other"), TWO_VALUES)
def test_given_twice_with_two_values_it_is_refused(
    server: ServiceServer, place: str, name: str, value: str, other: Any
) -> None:
    for values in ([value, other], [other, value]):
        answer = ask(server, place, name, values)
        error = check_error(answer, 400, "invalid_parameter", name)
        assert error["message"] == f"{name} is given twice, with two values"


@pytest.mark.parametrize("place", ["query", "form"])
def test_the_last_of_many_values_counts_as_the_first(server: ServiceServer, place: str) -> None:
    assert ask(server, place, "output", ["both"] * 4).status_code == 200
    answer = ask(server, place, "output", ["both", "both", "both", "pooled"])

    check_error(answer, 400, "invalid_parameter", "output")


@pytest.mark.parametrize("place", PLACES)
def test_a_wrong_value_is_named_wherever_it_is(server: ServiceServer, place: str) -> None:
    for values in (["all", "pooled"], ["pooled", "all"], ["all", "all"]):
        error = check_error(
            ask(server, place, "output", values), 400, "invalid_parameter", "output"
        )
        assert "twice" not in error["message"]


@pytest.mark.parametrize("place", PLACES)
def test_an_unknown_option_is_unknown_twice(server: ServiceServer, place: str) -> None:
    check_error(ask(server, place, "colour", ["a", "a"]), 400, "unknown_parameter", "colour")


def test_null_in_json_is_no_value(server: ServiceServer) -> None:
    assert ask(server, "json", "expect_space", [SPACE, None]).status_code == 200
    check_error(
        ask(server, "json", "expect_space", ["other", None]), 412, "space_mismatch", "expect_space"
    )


def test_a_form_whose_fields_nobody_filled_in_has_no_options(server: ServiceServer) -> None:
    """A browser sends them all the same, and so does /docs."""
    names = ("id", "output", "normalize", "encoding", "dtype", "on_error", "expect_space")
    bare = server.client.post("/embed", files={"images": ("a.png", PNG)})
    empty = server.client.post(
        "/embed", files={"images": ("a.png", PNG)}, data=dict.fromkeys(names, "")
    )

    assert empty.status_code == 200, empty.text
    assert empty.content == bare.content


def test_one_empty_id_among_others_keeps_its_place(server: ServiceServer) -> None:
    files = [("images", ("a.png", PNG))] * 3
    answer = server.client.post("/embed", files=files, data={"id": ["", "b", ""]})

    assert [item["id"] for item in answer.json()["data"]] == ["", "b", ""]


def test_an_empty_value_in_the_query_is_a_value(server: ServiceServer) -> None:
    """A script whose variable is empty must not lose its check."""
    check_error(ask(server, "query", "expect_space", [""]), 412, "space_mismatch", "expect_space")
