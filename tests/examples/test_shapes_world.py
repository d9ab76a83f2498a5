"""Which sentences are true of which scenes, and what is drawn of them."""

import re
from pathlib import Path

import numpy as np
import pytest

import app
from examples.shapes.drawing import draw_pixels
from examples.shapes.world import (
    COLOURS,
    GROUNDS,
    SHAPES,
    Scene,
    Thing,
    change_scene,
    describe,
    draw_scene,
    holds,
)

SCENE = Scene(Thing("small", "red", "circle"), "left of", Thing("large", "blue", "square"), "white")


def is_true(description: Scene, scene: Scene = SCENE) -> bool:
    rows = (np.array([one.encode()], np.int8) for one in (description, scene))
    return bool(holds(*rows).item())


@pytest.mark.parametrize(
    ("description", "words"),
    [
        (SCENE, "a small red circle left of a large blue square on a white ground"),
        (Scene(Thing()), "a shape"),
        (
            Scene(Thing(shape="square"), "right of", Thing(colour="red")),
            "a square right of a red shape",
        ),
        (Scene(Thing("large"), ground="white"), "a large shape on a white ground"),
    ],
)
def test_true_descriptions(description: Scene, words: str) -> None:
    assert str(description) == words
    assert is_true(description)


@pytest.mark.parametrize(
    "description",
    [
        Scene(Thing(colour="blue", shape="circle")),
        Scene(Thing("small", "blue")),
        Scene(Thing(shape="square"), "left of", Thing(shape="circle")),
        Scene(Thing(shape="circle"), "above", Thing(shape="square")),
        Scene(Thing(shape="circle"), ground="black"),
        Scene(Thing(shape="bicycle")),
    ],
)
def test_false_descriptions(description: Scene) -> None:
    assert not is_true(description)


def test_articles_fit() -> None:
    assert str(Scene(Thing(colour="orange"))) == "an orange shape"


def test_of_one_thing_no_relation_is_true() -> None:
    alone = Scene(SCENE.thing, ground="white")

    assert is_true(Scene(Thing(shape="circle")), alone)
    assert not is_true(Scene(Thing(shape="circle"), "left of", Thing()), alone)


def test_whatever_is_said_of_a_scene_is_true_or_names_what_is_in_none() -> None:
    random = np.random.default_rng(2)
    scenes = [draw_scene(random) for _ in range(500)]
    said = [describe(scene, random) for scene in scenes]

    false = [words for words, scene in zip(said, scenes, strict=True) if not is_true(words, scene)]

    assert len({str(words) for words in said}) > 300
    assert all(words.thing.shape not in ("circle", "shape", None) for words in false)
    assert len(false) < 30


def test_a_changed_scene_is_another_or_the_same_but_never_less() -> None:
    random = np.random.default_rng(3)
    scenes = [draw_scene(random) for _ in range(300)]
    changed = [change_scene(scene, random) for scene in scenes]

    different = sum(
        not is_true(after, before) for before, after in zip(scenes, changed, strict=True)
    )

    assert different > 200
    assert all(
        (one.other is None) == (two.other is None) for one, two in zip(scenes, changed, strict=True)
    )


@pytest.mark.parametrize("side", [64, 224])
def test_a_drawing_has_its_colours_at_their_places(side: int) -> None:
    random = np.random.default_rng(4)
    for _ in range(20):
        pixels = draw_pixels(SCENE, random, side).astype(int)
        left, right = pixels[:, : side // 2], pixels[:, side // 2 :]
        for colour, half in (("red", left), ("blue", right)):
            assert (abs(half - COLOURS[colour]).max(-1) < 25).sum() > 0.01 * side**2
        assert abs(pixels[0, 0] - GROUNDS["white"]).max() < 25


def test_the_same_seed_draws_the_same() -> None:
    first, second = (draw_pixels(SCENE, np.random.default_rng(5), 64) for _ in range(2))

    assert (first == second).all()


def test_the_playground_draws_the_same_world() -> None:
    script = (Path(app.__file__).parent / "playground" / "samples.js").read_text()
    for name, colours in (("COLOURS", COLOURS), ("GROUNDS", GROUNDS)):
        (body,) = re.findall(rf"const {name} = \{{(.*?)\}};", script, re.DOTALL)
        found = {
            word: tuple(bytes.fromhex(code))
            for word, code in re.findall(r'(\w+): "#(\w{6})"', body)
        }
        assert found == dict(colours)
    (body,) = re.findall(r"const SHAPES = \{(.*?)\n\};", script, re.DOTALL)
    assert set(re.findall(r"^  (\w+): \(path\)", body, re.MULTILINE)) == set(SHAPES)
