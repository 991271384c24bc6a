"""Scenes: what is in an image of the mini slices, and the image itself.

A scene is fixed by (split, number): the same two always give the same scene, on any machine.
"""

from dataclasses import dataclass

import numpy as np
from drawings import COLOURS, GROUNDS, KINDS, draw_ground, draw_object
from PIL import Image, ImageDraw

SPLITS = {"train": 1, "check": 2, "benchmark": 3, "development": 4}
"""Seeds. The benchmarks' scenes are never looked at in training, nor when settings are chosen.

Models are chosen on "check", settings of pruning methods on "development".
"""

SIDE = 256
"""Pixels along a side of an image."""

UNSEEN = frozenset(
    {("orange", "fish"), ("purple", "boat"), ("yellow", "key"), ("white", "heart"),
     ("black", "tree"), ("green", "cup"), ("blue", "house"), ("red", "cross")}
)  # fmt: skip
"""Pairs of colour and kind that no training scene holds: NoCaps's domains out of training."""

SMALL, LARGE = (0.062, 0.08), (0.125, 0.165)
"""Radii as a share of the image's side."""


@dataclass(frozen=True)
class Thing:
    """One object: centre and radius as shares of the image's side, y downwards."""

    kind: str
    colour: str
    size: str
    x: float
    y: float
    radius: float

    @property
    def name(self) -> str:
        """Colour and kind."""
        return f"{self.colour} {self.kind}"

    @property
    def place(self) -> str:
        """The quarter of the image that the centre is in."""
        return f"{'top' if self.y < 0.5 else 'bottom'} {'left' if self.x < 0.5 else 'right'}"


@dataclass(frozen=True)
class Scene:
    """A ground and one to six objects that do not touch."""

    split: str
    number: int
    ground: str
    things: tuple[Thing, ...]

    def named(self, name: str) -> list[Thing]:
        """Return the objects with this colour and kind."""
        return [thing for thing in self.things if thing.name == name]

    def of(self, *, kind: str | None = None, colour: str | None = None) -> list[Thing]:
        """Return the objects of a kind, of a colour, or both."""
        return [
            thing
            for thing in self.things
            if kind in (None, thing.kind) and colour in (None, thing.colour)
        ]

    @property
    def alone(self) -> list[Thing]:
        """Objects that no other shares both colour and kind with."""
        return [thing for thing in self.things if len(self.named(thing.name)) == 1]


def _rng(split: str, number: int, purpose: int) -> np.random.Generator:
    return np.random.default_rng([SPLITS[split], number, purpose])


def _place(rng: np.random.Generator, radius: float, placed: list[Thing]) -> tuple[float, float]:
    """Return a centre clear of what is placed, or raise StopIteration after many tries."""
    for _ in range(200):
        x, y = rng.uniform(radius + 0.02, 0.98 - radius, 2)
        if all(np.hypot(x - o.x, y - o.y) > 1.2 * (radius + o.radius) for o in placed):
            return float(x), float(y)
    raise StopIteration


def make_scene(split: str, number: int, unseen: str = "never", most: int = 6) -> Scene:
    """Return a scene.

    Args:
        split: a key of `SPLITS`.
        number: which one.
        unseen: "never": no pair of `UNSEEN`; "some": its pairs among others; "only": nothing else.
        most: largest number of objects.
    """
    rng = _rng(split, number, 0)
    wanted = int(rng.integers(1, most + 1))
    placed: list[Thing] = []
    while len(placed) < wanted:
        rare = unseen == "only" or (unseen == "some" and len(placed) % 2 == 0)
        colour, kind = _pair(rng, rare, placed)
        size = "small" if rng.random() < 0.5 else "large"
        radius = float(rng.uniform(*(SMALL if size == "small" else LARGE)))
        try:
            x, y = _place(rng, radius, placed)
        except StopIteration:
            break
        placed.append(Thing(kind, colour, size, x, y, radius))
    return Scene(split, number, str(rng.choice(list(GROUNDS))), tuple(placed))


def _pair(rng: np.random.Generator, rare: bool, placed: list[Thing]) -> tuple[str, str]:
    if rare:
        return sorted(UNSEEN)[rng.integers(len(UNSEEN))]
    while True:
        kind, colour = str(rng.choice(KINDS)), str(rng.choice(list(COLOURS)))
        if placed and rng.random() < 0.4:
            # Repeated kinds and colours: counting needs them, and telling objects apart gets hard.
            other = placed[rng.integers(len(placed))]
            kind, colour = (other.kind, colour) if rng.random() < 0.6 else (kind, other.colour)
        if (colour, kind) not in UNSEEN:
            return colour, kind


def draw_scene(scene: Scene, side: int = SIDE) -> Image.Image:
    """Return the image of a scene, RGB, [side side]; drawn at twice the size and reduced."""
    rng = _rng(scene.split, scene.number, 1)
    canvas = draw_ground(scene.ground, rng, 2 * side)
    pen = ImageDraw.Draw(canvas)
    for thing in scene.things:
        fill = np.clip(np.array(COLOURS[thing.colour]) + rng.normal(0, 8, 3), 0, 255)
        red, green, blue = (int(value) for value in fill)
        centre = (thing.x * 2 * side, thing.y * 2 * side)
        draw_object(pen, thing.kind, (red, green, blue), centre, thing.radius * 2 * side)
    return canvas.resize((side, side), Image.Resampling.LANCZOS)
