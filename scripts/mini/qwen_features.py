"""Pictures of the scenes and hidden states of a tower, computed once for all of training."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from features import picture
from numpy.lib.format import open_memmap
from qwen_tower import CHANNELS, PATCH, STATES, pixels
from scenes import SIDE, make_scene
from torch import Tensor

MOST = 6
"""Objects in a scene, at most."""

Tower = Callable[[Tensor], list[Tensor]]
"""Pixel values [b 3 14h 14w] to the patches after each block, [b n 384] each."""


def draw_pictures(file: Path, split: str, scenes: int) -> None:
    """Write scenes 0 to ``scenes`` - 1 of a split, [scenes 256 256 3] uint8; none if they exist."""
    if file.exists():
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    fresh = file.with_suffix(".new")
    table = open_memmap(fresh, mode="w+", dtype=np.uint8, shape=(scenes, SIDE, SIDE, 3))
    for number in range(scenes):
        table[number] = np.asarray(picture(make_scene(split, number, most=MOST)))
    table.flush()
    fresh.rename(file)


@torch.no_grad()
def keep_states(
    tower: Tower, pictures: Path, file: Path, side: int, scenes: int, chunk: int = 20
) -> None:
    """Write a tower's hidden states of pictures, [scenes n 3 384] float16, for `Features`.

    Args:
        tower: the tower.
        pictures: from `draw_pictures`.
        file: to write, ``<split><side>.npy``; goes on where an earlier call stopped.
        side: pixels along a side.
        scenes: pictures to take, from the first on.
        chunk: pictures at a time.
    """
    table, grid = np.load(pictures, mmap_mode="r"), side // PATCH
    ready = file.with_suffix(".ready")
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        meta = {"split": pictures.stem, "side": side, "most": MOST, "scenes": scenes}
        file.with_suffix(".json").write_text(json.dumps(meta))
        shape = (scenes, grid**2, len(STATES), CHANNELS)
        open_memmap(file, mode="w+", dtype=np.float16, shape=shape).flush()
        ready.write_text("0")
    kept = open_memmap(file, mode="r+")
    for first in range(int(ready.read_text()), scenes, chunk):
        last = min(first + chunk, scenes)
        # Half the time of float32; the difference is a hundredth of what training has to learn.
        with torch.autocast("cpu", torch.bfloat16):
            states = tower(pixels(table[first:last], grid, grid))
        kept[first:last] = torch.stack([states[block] for block in STATES], 2).half().numpy()
        ready.write_text(str(last))
