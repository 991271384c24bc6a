"""Outlines of the objects of mini scenes, and the grounds that they stand on.

All of it is drawn by this file; no image comes from elsewhere.
"""

from collections.abc import Callable
from math import cos, pi, sin

import numpy as np
from PIL import Image, ImageDraw

COLOURS = {
    "red": (214, 40, 40),
    "green": (38, 150, 60),
    "blue": (45, 80, 215),
    "yellow": (240, 210, 50),
    "purple": (145, 50, 175),
    "orange": (240, 130, 30),
    "white": (245, 245, 245),
    "black": (25, 25, 25),
}
SHAPES = ("circle", "square", "triangle", "star", "heart", "cross")
THINGS = ("house", "tree", "car", "boat", "fish", "flower", "cup", "key")
KINDS = SHAPES + THINGS

Points = list[tuple[float, float]]
Draw = ImageDraw.ImageDraw
Fill = tuple[int, int, int]


def _ring(corners: int, outer: float = 1.0, inner: float | None = None) -> Points:
    """Return a regular polygon, or a star when an inner radius is given; one corner points up."""
    radii = [outer] if inner is None else [outer, inner]
    steps = corners * len(radii)
    return [
        (
            radii[i % len(radii)] * sin(2 * pi * i / steps),
            -radii[i % len(radii)] * cos(2 * pi * i / steps),
        )
        for i in range(steps)
    ]


def _heart() -> Points:
    angles = np.linspace(0, 2 * pi, 48, endpoint=False)
    x = 16 * np.sin(angles) ** 3
    y = -13 * np.cos(angles) + 5 * np.cos(2 * angles) + 2 * np.cos(3 * angles) + np.cos(4 * angles)
    return [(float(a) / 17, float(b) / 17) for a, b in zip(x, y, strict=True)]


_ARM = 0.33
POLYGONS: dict[str, Points] = {
    "circle": _ring(48, 0.95),
    "square": [(-0.85, -0.85), (0.85, -0.85), (0.85, 0.85), (-0.85, 0.85)],
    "triangle": [(0, -0.95), (0.95, 0.8), (-0.95, 0.8)],
    "star": _ring(5, 1.0, 0.42),
    "heart": _heart(),
    "cross": [
        (-_ARM, -1), (_ARM, -1), (_ARM, -_ARM), (1, -_ARM), (1, _ARM), (_ARM, _ARM),
        (_ARM, 1), (-_ARM, 1), (-_ARM, _ARM), (-1, _ARM), (-1, -_ARM), (-_ARM, -_ARM),
    ],
}  # fmt: skip
DARK, PALE, BROWN = (45, 45, 50), (225, 235, 240), (110, 70, 40)


class Pen:
    """Draws in an object's own coordinates: its centre is (0, 0), its radius 1."""

    def __init__(self, draw: Draw, centre: tuple[float, float], radius: float) -> None:
        self.draw, self.centre, self.radius = draw, centre, radius

    def _at(self, x: float, y: float) -> tuple[float, float]:
        return self.centre[0] + x * self.radius, self.centre[1] + y * self.radius

    def polygon(self, points: Points, fill: Fill) -> None:
        """Fill a polygon and outline it."""
        width = max(1, round(self.radius * 0.07))
        self.draw.polygon([self._at(*p) for p in points], fill=fill, outline=DARK, width=width)

    def box(self, left: float, top: float, right: float, bottom: float, fill: Fill) -> None:
        """Fill an upright rectangle."""
        self.polygon([(left, top), (right, top), (right, bottom), (left, bottom)], fill)

    def disc(self, x: float, y: float, radius: float, fill: Fill) -> None:
        """Fill a disc."""
        self.polygon([(x + radius * a, y + radius * b) for a, b in _ring(24)], fill)


def _house(pen: Pen, fill: Fill) -> None:
    pen.box(-0.7, -0.2, 0.7, 0.95, fill)
    pen.polygon([(0, -1), (0.95, -0.2), (-0.95, -0.2)], BROWN)
    pen.box(-0.18, 0.35, 0.18, 0.95, DARK)
    pen.box(0.3, 0.05, 0.55, 0.3, PALE)


def _tree(pen: Pen, fill: Fill) -> None:
    pen.box(-0.16, 0.2, 0.16, 1.0, BROWN)
    for x, y, r in ((-0.4, 0.0, 0.45), (0.4, 0.0, 0.45), (0.0, -0.45, 0.52)):
        pen.disc(x, y, r, fill)


def _car(pen: Pen, fill: Fill) -> None:
    pen.polygon([(-0.5, -0.5), (0.4, -0.5), (0.65, 0.0), (-0.7, 0.0)], PALE)
    pen.box(-1.0, 0.0, 1.0, 0.45, fill)
    for x in (-0.55, 0.55):
        pen.disc(x, 0.48, 0.26, DARK)


def _boat(pen: Pen, fill: Fill) -> None:
    pen.box(-0.06, -1.0, 0.06, 0.35, BROWN)
    pen.polygon([(0.1, -0.95), (0.85, 0.2), (0.1, 0.2)], PALE)
    pen.polygon([(-1.0, 0.3), (1.0, 0.3), (0.65, 0.85), (-0.65, 0.85)], fill)


def _fish(pen: Pen, fill: Fill) -> None:
    pen.polygon([(0.4, 0.0), (1.0, -0.55), (1.0, 0.55)], fill)
    pen.polygon([(-0.2 + 0.8 * a, 0.52 * b) for a, b in _ring(36)], fill)
    pen.disc(-0.6, -0.12, 0.11, PALE)


def _flower(pen: Pen, fill: Fill) -> None:
    pen.box(-0.06, 0.0, 0.06, 1.0, (40, 110, 50))
    for x, y in _ring(6, 0.42):
        pen.disc(x, y - 0.35, 0.27, fill)
    pen.disc(0, -0.35, 0.24, (120, 80, 20))


def _cup(pen: Pen, fill: Fill) -> None:
    pen.disc(0.6, 0.0, 0.38, fill)
    pen.disc(0.6, 0.0, 0.2, PALE)
    pen.polygon([(-0.8, -0.7), (0.55, -0.7), (0.4, 0.8), (-0.65, 0.8)], fill)


def _key(pen: Pen, fill: Fill) -> None:
    pen.box(-0.2, -0.14, 1.0, 0.14, fill)
    for x in (0.5, 0.8):
        pen.box(x, 0.1, x + 0.16, 0.5, fill)
    pen.disc(-0.55, 0.0, 0.45, fill)
    pen.disc(-0.55, 0.0, 0.2, PALE)


DRAWN: dict[str, Callable[[Pen, Fill], None]] = {
    "house": _house, "tree": _tree, "car": _car, "boat": _boat,
    "fish": _fish, "flower": _flower, "cup": _cup, "key": _key,
}  # fmt: skip


def draw_object(
    draw: Draw, kind: str, fill: Fill, centre: tuple[float, float], radius: float
) -> None:
    """Draw one object; ``centre`` and ``radius`` in pixels."""
    pen = Pen(draw, centre, radius)
    if kind in POLYGONS:
        pen.polygon(POLYGONS[kind], fill)
    else:
        DRAWN[kind](pen, fill)


def _noise(rng: np.random.Generator, side: int, bumps: int) -> np.ndarray:
    """Return smooth noise in about -1..1, [side side], with ``bumps`` bumps along a side."""
    small = rng.uniform(-1, 1, (bumps + 1, bumps + 1)).astype(np.float32)
    return np.asarray(Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC))


def _grass(rng: np.random.Generator, side: int) -> np.ndarray:
    blades = np.repeat(rng.uniform(-1, 1, (side // 8, side)), 8, axis=0)
    return np.array((128, 152, 104)) + 22 * blades[..., None] + 9 * _noise(rng, side, 5)[..., None]


def _sand(rng: np.random.Generator, side: int) -> np.ndarray:
    grains = rng.normal(0, 1, (side, side, 1))
    return np.array((206, 188, 150)) + 10 * grains + 9 * _noise(rng, side, 7)[..., None]


def _water(rng: np.random.Generator, side: int) -> np.ndarray:
    y, x = np.mgrid[:side, :side] / side
    waves = np.sin(
        2 * pi * (rng.uniform(9, 13) * y + 0.5 * np.sin(2 * pi * (2 * x + rng.random())))
    )
    return np.array((140, 172, 190)) + 15 * waves[..., None]


def _bricks(rng: np.random.Generator, side: int) -> np.ndarray:
    y, x = np.mgrid[:side, :side]
    high, wide = side // 12, side // 6
    row = y // high
    column = (x + (row % 2) * wide // 2) // wide
    tone = rng.uniform(-14, 14, (14, 9))[row, column]
    mortar = (y % high < 5) | ((x + (row % 2) * wide // 2) % wide < 5)
    wall = np.array((172, 136, 122)) + tone[..., None]
    return np.where(mortar[..., None], np.array((202, 196, 188)), wall)


def _wood(rng: np.random.Generator, side: int) -> np.ndarray:
    y, x = np.mgrid[:side, :side] / side
    grain = np.sin(2 * pi * (18 * y + 1.6 * _noise(rng, side, 3)))
    planks = (y * 5 % 1 < 0.04)[..., None]
    return np.array((178, 148, 112)) + 13 * grain[..., None] - 50 * planks


def _paper(rng: np.random.Generator, side: int) -> np.ndarray:
    y, x = np.mgrid[:side, :side]
    lines = ((x % (side // 14) < 3) | (y % (side // 14) < 3))[..., None]
    return np.array((222, 222, 216)) - 26 * lines + 3 * rng.normal(0, 1, (side, side, 1))


GROUNDS: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "grass": _grass, "sand": _sand, "water": _water,
    "bricks": _bricks, "wood": _wood, "paper": _paper,
}  # fmt: skip


def draw_ground(name: str, rng: np.random.Generator, side: int) -> Image.Image:
    """Return a square of a ground, lit from a random side."""
    y, x = np.mgrid[:side, :side] / side - 0.5
    angle = rng.uniform(0, 2 * pi)
    light = 26 * (x * cos(angle) + y * sin(angle))[..., None]
    pixels = GROUNDS[name](rng, side) + light + rng.uniform(-10, 10)
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
