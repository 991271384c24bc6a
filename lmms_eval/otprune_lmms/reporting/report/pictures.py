"""Images and kept patches, made small for the page; each image is stored once."""

import base64
import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from otprune_lmms.results.frames import Frame

SIDE = 384
"""Pixels of the longer side, at most."""

_QUALITY = 78


@dataclass(frozen=True, slots=True)
class EmbeddedImage:
    """An image of the page.

    Attributes:
        uri: the image itself, as ``data:``.
        width: of the image as the task gives it, pixels.
        height: likewise.
    """

    uri: str
    width: int
    height: int


class EmbeddedImages:
    """The images of the page, by number; equal images are stored once."""

    def __init__(self) -> None:
        self.images: list[EmbeddedImage] = []
        self._numbers: dict[str, int] = {}

    def add(self, image: Image.Image) -> int:
        """Return the number of an image; a new one is made small and stored."""
        rgb = image.convert("RGB")
        digest = hashlib.sha256(f"{rgb.size}".encode() + rgb.tobytes()).hexdigest()
        if digest not in self._numbers:
            self._numbers[digest] = len(self.images)
            self.images.append(EmbeddedImage(data_uri(small(rgb), "image/webp"), *rgb.size))
        return self._numbers[digest]


def small(image: Image.Image, side: int = SIDE) -> bytes:
    """Return an RGB image as WebP, its longer side at most ``side`` pixels."""
    copy = image.copy()
    copy.thumbnail((side, side), Image.Resampling.LANCZOS)
    stored = io.BytesIO()
    copy.save(stored, "WEBP", quality=_QUALITY, method=4)
    return stored.getvalue()


def data_uri(content: bytes, kind: str) -> str:
    """Return content as a ``data:`` address."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


class KeptPatches:
    """Kept patches of each setting and image, for images whose tokens are one raster of patches.

    Args:
        diagnostics: of the results folder; None where nothing was diagnosed.
        models: models of the page, in its order; others are left out.
        settings: settings of the page, in its order; others are left out.
    """

    def __init__(self, diagnostics: Frame | None, models: list[str], settings: list[str]) -> None:
        self.models, self.settings = models, settings
        self._images: dict[Any, Frame] = {}
        if diagnostics is not None and len(diagnostics):
            known = diagnostics["model"].isin(self.models) & diagnostics["setting"].isin(
                self.settings
            )
            rasters = diagnostics[known & (diagnostics["height"] > 0)]
            once = rasters.drop_duplicates(["model", "setting", "cluster", "image"])
            self._images = dict(tuple(once.groupby(["cluster", "image"], sort=False)))

    @property
    def clusters(self) -> set[str]:
        """Clusters of images of which something is recorded."""
        return {cluster for cluster, _ in self._images}

    def of(self, cluster: str, images: int) -> list[dict[str, Any] | None]:
        """Return each image's grid and ``sets``; None for an image of which nothing is recorded.

        A set is the number of the model, that of the setting, and `bits`.
        """
        return [self._of(cluster, number) for number in range(images)]

    def _of(self, cluster: str, number: int) -> dict[str, Any] | None:
        lines = self._images.get((cluster, number))
        if lines is None:
            return None
        grid = (int(lines["height"].iloc[0]), int(lines["width"].iloc[0]))
        sets = [
            [
                self.models.index(line.model),
                self.settings.index(line.setting),
                bits(line.kept, grid),
            ]
            for line in lines.itertuples()
            if (line.height, line.width) == grid
        ]
        return {"grid": list(grid), "sets": sets}


def bits(kept: Sequence[int], grid: tuple[int, int]) -> str:
    """Return kept positions as base64 of one bit a patch, row by row, the first bit highest."""
    mask = np.zeros(grid[0] * grid[1], dtype=bool)
    mask[np.asarray(kept, dtype=int)] = True
    return base64.b64encode(np.packbits(mask).tobytes()).decode()
