"""What the model knows: scenes of one or two coloured shapes, and which sentences are true of them.

A scene and a description are the same thing; a description leaves out what it does not say.
"""

from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

Colour = tuple[int, int, int]
Rows = NDArray[np.int8]

SHAPES = ("circle", "square", "triangle", "star", "cross", "ring")
SIZES = ("small", "large")
COLOURS: MappingProxyType[str, Colour] = MappingProxyType(
    {
        "red": (214, 40, 40),
        "orange": (247, 127, 0),
        "yellow": (252, 209, 22),
        "green": (42, 157, 67),
        "blue": (29, 95, 209),
        "purple": (131, 56, 236),
        "white": (255, 255, 255),
        "black": (17, 17, 17),
    }
)
GROUNDS: MappingProxyType[str, Colour] = MappingProxyType(
    {
        "white": (255, 255, 255),
        "grey": (154, 154, 154),
        "pink": (247, 178, 196),
        "brown": (122, 75, 42),
        "black": (17, 17, 17),
    }
)
# Each relation and what it is from the other side.
OPPOSITES: MappingProxyType[str, str] = MappingProxyType(
    {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
)

_UNSAID = -1
_UNKNOWN = -2  # a word that is true of no scene


@dataclass(frozen=True)
class Thing:
    """One coloured shape; what is None is not said."""

    size: str | None = None
    colour: str | None = None
    shape: str | None = None

    def __str__(self) -> str:
        """Name it: "a small red circle", "a shape"."""
        words = [word for word in (self.size, self.colour, self.shape or "shape") if word]
        return f"{'an' if words[0][0] in 'aeiou' else 'a'} {' '.join(words)}"


@dataclass(frozen=True)
class Scene:
    """One thing, or two and how the first stands to the second, on a ground."""

    thing: Thing
    relation: str | None = None
    other: Thing | None = None
    ground: str | None = None

    def __str__(self) -> str:
        """Describe it: "a red circle left of a small blue square on a grey ground"."""
        second = f" {self.relation} {self.other}" if self.relation else ""
        where = f" on a {self.ground} ground" if self.ground else ""
        return f"{self.thing}{second}{where}"

    def turn(self) -> "Scene":
        """Say the same of two things from the other's side."""
        if self.other is None or self.relation is None:
            return self
        return Scene(self.other, OPPOSITES[self.relation], self.thing, self.ground)

    def encode(self) -> list[int]:
        """Return its words as numbers, -1 for what is not said: a row for `holds`."""
        numbers = []
        for thing in (self.thing, self.other or Thing()):
            numbers += [
                _number(thing.size, SIZES),
                _number(thing.colour, tuple(COLOURS)),
                _number(thing.shape, SHAPES),
            ]
        relation = _number(self.relation, tuple(OPPOSITES))
        return [*numbers, relation, _number(self.ground, tuple(GROUNDS))]


def holds(descriptions: Rows, scenes: Rows) -> NDArray[np.bool_]:
    """Tell which descriptions are true of which scenes: rows of `Scene.encode` -> (n, m)."""
    opposite = np.array([*map(list(OPPOSITES).index, OPPOSITES.values()), _UNSAID], np.int8)
    reversed_scenes = scenes[:, [3, 4, 5, 0, 1, 2, 6, 7]]
    reversed_scenes[:, 6] = opposite[scenes[:, 6]]
    readings = np.stack([scenes, reversed_scenes])  # (2, m, 8)
    said = descriptions[:, None]
    fits = (said == _UNSAID) | (said == readings[:, None])  # (2, n, m, 8)
    truth: NDArray[np.bool_] = fits.all(-1).any(0)
    return truth


def draw_scene(random: np.random.Generator, things: int | None = None) -> Scene:
    """Draw a scene at random, of so many things, else of one or two."""
    ground = _pick(random, tuple(GROUNDS))
    thing = _draw_thing(random, ground)
    if things == 1 or (things is None and random.random() < 0.4):
        return Scene(thing, ground=ground)
    return Scene(thing, _pick(random, tuple(OPPOSITES)), _draw_thing(random, ground), ground)


def change_scene(scene: Scene, random: np.random.Generator) -> Scene:
    """Return a scene that differs in one respect: what a model must look closely to tell apart."""
    thing, other = scene.thing, scene.other
    if other and random.random() < 0.6:
        turned = replace(scene.turn(), thing=thing, other=other)
        mixed = replace(
            scene,
            thing=replace(thing, colour=other.colour),
            other=replace(other, colour=thing.colour),
        )
        return turned if random.random() < 0.5 else mixed
    drawn = _draw_thing(random, scene.ground)
    field = _pick(random, ("size", "colour", "shape"))
    change = {field: getattr(drawn, field)}
    if other and random.random() < 0.5:
        return replace(scene, other=replace(other, **change))
    return replace(scene, thing=replace(thing, **change))


def describe(scene: Scene, random: np.random.Generator) -> Scene:
    """Return what somebody may say of a scene: all of it, or less."""
    if random.random() < 0.02:  # something that is in no scene
        return Scene(Thing(None, scene.thing.colour, _draw_word(random)))
    keep = 1.0 if random.random() < 0.5 else 0.6
    scene = scene.turn() if random.random() < 0.5 else scene
    ground = scene.ground if random.random() < 0.4 else None
    thing = _leave_out(scene.thing, keep, random)
    if scene.other is None or random.random() > keep:
        return Scene(thing, ground=ground)
    return Scene(thing, scene.relation, _leave_out(scene.other, keep, random), ground)


def _number(word: str | None, words: tuple[str, ...]) -> int:
    if word is None:
        return _UNSAID
    return words.index(word) if word in words else _UNKNOWN


def _pick(random: np.random.Generator, words: tuple[str, ...]) -> str:
    return words[random.integers(len(words))]


def _draw_thing(random: np.random.Generator, ground: str | None) -> Thing:
    colours = tuple(colour for colour in COLOURS if colour != ground)
    return Thing(_pick(random, SIZES), _pick(random, colours), _pick(random, SHAPES))


def _leave_out(thing: Thing, keep: float, random: np.random.Generator) -> Thing:
    kept = random.random(3) < keep
    return Thing(
        thing.size if kept[0] else None,
        thing.colour if kept[1] else None,
        thing.shape if kept[2] else None,
    )


def _draw_word(random: np.random.Generator) -> str:
    letters = random.integers(ord("a"), ord("z") + 1, random.integers(3, 9))
    return "".join(map(chr, letters))
