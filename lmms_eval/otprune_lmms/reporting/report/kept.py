"""Kept patches of the diagnosed images, small enough for a page."""

import base64
from collections.abc import Sequence
from typing import Any

import numpy as np

from otprune_lmms.reporting.figures.data import Frame


class Kept:
    """What each cell keeps of each image whose tokens are one raster of patches.

    Args:
        diagnostics: of the results folder; None where nothing was diagnosed.
        models: of the page, in its order; others are left out.
        cells: likewise.
    """

    def __init__(self, diagnostics: Frame | None, models: list[str], cells: list[str]) -> None:
        self.models, self.cells = models, cells
        self._images: dict[Any, Frame] = {}
        if diagnostics is not None and len(diagnostics):
            known = diagnostics["model"].isin(self.models) & diagnostics["setting"].isin(self.cells)
            rasters = diagnostics[known & (diagnostics["height"] > 0)]
            once = rasters.drop_duplicates(["model", "setting", "cluster", "image"])
            self._images = dict(tuple(once.groupby(["cluster", "image"], sort=False)))

    @property
    def clusters(self) -> set[str]:
        """Clusters of images of which something is recorded."""
        return {cluster for cluster, _ in self._images}

    def of(self, cluster: str, images: int) -> list[dict[str, Any] | None]:
        """Return for each image of a document its grid and its ``sets``; None where nothing is.

        A set is the number of the model, that of the cell, and `bits`.
        """
        return [self._of(cluster, number) for number in range(images)]

    def _of(self, cluster: str, number: int) -> dict[str, Any] | None:
        lines = self._images.get((cluster, number))
        if lines is None:
            return None
        grid = (int(lines["height"].iloc[0]), int(lines["width"].iloc[0]))
        sets = [
            [self.models.index(line.model), self.cells.index(line.setting), bits(line.kept, grid)]
            for line in lines.itertuples()
            if (line.height, line.width) == grid
        ]
        return {"grid": list(grid), "sets": sets}


def bits(kept: Sequence[int], grid: tuple[int, int]) -> str:
    """Return kept positions as base64 of one bit a patch, row by row, the first bit highest."""
    mask = np.zeros(grid[0] * grid[1], dtype=bool)
    mask[np.asarray(kept, dtype=int)] = True
    return base64.b64encode(np.packbits(mask).tobytes()).decode()
