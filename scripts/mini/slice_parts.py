"""What all mini slices are made of: rows, features, scenes of the benchmarks' own range."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from datasets import Image, Value
from features import jpeg
from questions import FAMILIES, Question
from scenes import SPLITS, Scene, make_scene

Row = dict[str, Any]
TEXT, WHOLE = Value("string"), Value("int64")
IMAGE = Image()

BENCHMARK = "benchmark"
"""The split of the committed slices."""


def image_of(scene: Scene) -> dict[str, Any]:
    """Return a scene as a data set holds it."""
    return {"bytes": jpeg(scene), "path": None}


def rng_of(first: int, split: str = BENCHMARK) -> np.random.Generator:
    """Return the generator of the slice whose scenes begin with this number."""
    return np.random.default_rng([11, first] if split == BENCHMARK else [11, first, SPLITS[split]])


def asked(
    names: list[str], first: int, rows: int, split: str = BENCHMARK
) -> Iterator[tuple[int, Scene, Question]]:
    """Yield (number, scene, question) with the families in turn, one question a scene."""
    rng, number, found = rng_of(first, split), first, 0
    while found < rows:
        scene = make_scene(split, number)
        question = FAMILIES[names[found % len(names)]](scene, rng)
        if question is not None:
            yield found, scene, question
            found += 1
        number += 1


def texts(*names: str) -> dict[str, Any]:
    """Return columns of text."""
    return dict.fromkeys(names, TEXT)
