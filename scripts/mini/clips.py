"""Clips: scenes in which one object comes in, crosses and leaves while all else stands still.

A clip is fixed by its number. Its scenes are numbers of the split "check" that neither training nor
the benchmarks show.
"""

import io
from dataclasses import dataclass, replace

import numpy as np
from drawings import COLOURS, GROUNDS, KINDS
from formats import LETTER, lettered
from PIL import Image
from scenes import Scene, Thing, draw_scene, make_scene

FRAMES = 8
FIRST = 200_000
"""Scenes from here on are those of clips."""

_RADIUS, _GRAIN = 0.13, 2.0
"""The moving object's size, and the standard deviation of the noise of each frame's pixels."""


@dataclass(frozen=True)
class Clip:
    """One clip.

    Attributes:
        number: which one.
        still: the scene without the moving object.
        moving: the object's place in each frame; None where it is not in it.
    """

    number: int
    still: Scene
    moving: tuple[Thing | None, ...]

    @property
    def mover(self) -> Thing:
        """The moving object, where it is first seen."""
        return next(thing for thing in self.moving if thing is not None)

    @property
    def middle(self) -> int:
        """The frame in which the moving object is nearest to the image's middle."""
        there = [(abs(m.x - 0.5), t) for t, m in enumerate(self.moving) if m is not None]
        return min(there)[1]


def make_clip(number: int, frames: int = FRAMES) -> Clip:
    """Return a clip: three or four frames show the moving object, never the first or the last.

    No other object shares its colour or its kind, and one of the others has a kind of its own.
    """
    rng = np.random.default_rng([11, number])
    for attempt in range(1000):
        still = make_scene("check", FIRST + 1000 * number + attempt, most=4)
        kind, colour = str(rng.choice(KINDS)), str(rng.choice(list(COLOURS)))
        alone = [t for t in still.things if len(still.of(kind=t.kind)) == 1]
        if alone and not still.of(kind=kind) and not still.of(colour=colour):
            break
    seen = int(rng.integers(3, 5))
    first = int(rng.integers(1, frames - seen))
    y, left = float(rng.uniform(0.2, 0.8)), bool(rng.random() < 0.5)
    moving: list[Thing | None] = [None] * frames
    for step in range(seen):
        x = 0.15 + 0.7 * step / (seen - 1)
        moving[first + step] = Thing(kind, colour, "large", x if left else 1 - x, y, _RADIUS)
    return Clip(number, still, tuple(moving))


def draw_clip(clip: Clip) -> list[Image.Image]:
    """Return the frames, RGB, as a reader of JPEG files sees them; grain differs in each."""
    frames = []
    for t, thing in enumerate(clip.moving):
        things = clip.still.things + ((thing,) if thing is not None else ())
        pixels = np.asarray(draw_scene(replace(clip.still, things=things)), dtype=np.float32)
        grain = np.random.default_rng([12, clip.number, t]).normal(0, _GRAIN, pixels.shape)
        image = Image.fromarray(np.clip(pixels + grain, 0, 255).astype(np.uint8))
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=90)
        frames.append(Image.open(buffer).convert("RGB"))
    return frames


def documents(clip: Clip) -> list[dict[str, str]]:
    """Return questions about a clip as documents of SEED-Bench's schema, options and letter.

    Two about the moving object, its colour and its kind; its place would depend on the frame. Two
    about what stands still: the colour of an object, and the ground.
    """
    rng = np.random.default_rng([13, clip.number])
    mover = clip.mover
    alone = [t for t in clip.still.things if len(clip.still.of(kind=t.kind)) == 1]
    still = alone[int(rng.integers(len(alone)))]
    asked = [
        ("moving", f"What color is the {mover.kind}?", mover.colour, list(COLOURS)),
        ("moving", f"What is the {mover.colour} object?", mover.kind, list(KINDS)),
        ("still", f"What color is the {still.kind}?", still.colour, list(COLOURS)),
        ("still", "What is in the background?", clip.still.ground, list(GROUNDS)),
    ]
    found = []
    for about, question, answer, choices in asked:
        others = [choice for choice in choices if choice != answer]
        picked = [others[i] for i in rng.permutation(len(others))[:3]]
        place = int(rng.integers(4))
        options = [*picked[:place], answer, *picked[place:]]
        found.append(
            {"question": question, "answer": chr(65 + place), "data_type": "video", "about": about}
            | {f"choice_{letter}": choice for letter, choice in zip("abcd", options, strict=True)}
        )
    return found


def prompt(document: dict[str, str]) -> str:
    """Return the text after the frames, as lmms-eval asks such a document."""
    options = lettered([document[f"choice_{letter}"] for letter in "abcd"])
    return f"{document['question']}\n{options}{LETTER}"


def shown(clip: Clip, side: int) -> np.ndarray:
    """Return which patches [frames, side * side] the moving object's disc touches."""
    found = np.zeros((len(clip.moving), side, side), dtype=bool)
    centres = (np.arange(side) + 0.5) / side
    for t, thing in enumerate(clip.moving):
        if thing is not None:
            away = np.hypot(centres[None] - thing.x, centres[:, None] - thing.y)
            found[t] = away < thing.radius
    return found.reshape(len(clip.moving), -1)
