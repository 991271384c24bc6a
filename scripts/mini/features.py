"""Tower features of the training scenes, computed once and read by every epoch of training."""

import io
import json
import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib.format import open_memmap
from PIL import Image
from scenes import Scene, draw_scene, make_scene
from tower import patch_features, processor, read_tower

CHUNK = 50
_state: dict[str, Any] = {}


def jpeg(scene: Scene, quality: int = 90) -> bytes:
    """Return the image of a scene as the JPEG file that the benchmarks hold."""
    file = io.BytesIO()
    draw_scene(scene).save(file, "JPEG", quality=quality, subsampling=0)
    return file.getvalue()


def picture(scene: Scene) -> Image.Image:
    """Return the image as a reader of the JPEG file sees it."""
    return Image.open(io.BytesIO(jpeg(scene))).convert("RGB")


def _start(tower: Path, side: int) -> None:
    torch.set_num_threads(1)
    _state.update(tower=read_tower(tower), processor=processor(side))


def _chunk(split: str, first: int, most: int) -> np.ndarray:
    images = [picture(make_scene(split, first + i, most=most)) for i in range(CHUNK)]
    pixels = _state["processor"](images)["pixel_values"]
    parts = [patch_features(_state["tower"], part) for part in pixels.split(10)]
    return torch.cat(parts).half().numpy()


class Features:
    """A file of features, [scenes n 384] float16, that may still be growing."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.table = np.load(file, mmap_mode="r")
        self.meta = json.loads(file.with_suffix(".json").read_text())

    @property
    def ready(self) -> int:
        """Number of scenes, from 0 on, whose features are there."""
        return int(self.file.with_suffix(".ready").read_text())

    def rows(self, numbers: np.ndarray) -> torch.Tensor:
        """Return the features of some scenes, [b n 384] float32."""
        return torch.from_numpy(np.stack([self.table[int(i)] for i in numbers])).float()


def make_features(
    tower: Path, file: Path, *, split: str, scenes: int, side: int, most: int, workers: int
) -> None:
    """Write the features of scenes 0 to ``scenes`` - 1; goes on where an earlier call stopped."""
    shape = (scenes, (side // 14) ** 2, 384)
    meta = {"split": split, "side": side, "most": most, "scenes": scenes}
    counter = file.with_suffix(".ready")
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.with_suffix(".json").write_text(json.dumps(meta))
        counter.write_text("0")
        open_memmap(file, mode="w+", dtype=np.float16, shape=shape).flush()
    table = open_memmap(file, mode="r+")
    done = int(counter.read_text())
    with ProcessPoolExecutor(workers, initializer=_start, initargs=(tower, side)) as pool:
        firsts = range(done, scenes, CHUNK)
        for first, rows in zip(
            firsts,
            pool.map(_chunk, [split] * len(firsts), firsts, [most] * len(firsts)),
            strict=True,
        ):
            table[first : first + CHUNK] = rows
            fresh = counter.with_suffix(".new")
            fresh.write_text(str(first + CHUNK))
            os.replace(fresh, counter)
