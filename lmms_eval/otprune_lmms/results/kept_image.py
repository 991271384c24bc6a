"""Which patches settings keep of one image: ``kept_patches.npz``, the data of a figure."""

import io
import json
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter, ValidationError

from otprune_lmms.files import atomic_write, read_file
from otprune_lmms.json_files import first_fault

KEPT_IMAGE = "kept_patches.npz"

KEPT_PATCHES = "kept_patches.png"
"""The figure that reporting draws from it."""

_DAMAGED = (
    *(OSError, ValueError, KeyError, EOFError, NotImplementedError, MemoryError),
    *(TypeError, AttributeError, zipfile.BadZipFile, zlib.error),
)
"""What numpy raises for files that it cannot read."""

_SETTINGS = TypeAdapter(list[dict[str, str | int | float | bool | None]])


@dataclass(frozen=True)
class KeptImage:
    """What settings keep of one image.

    Attributes:
        pixels: as the model sees it, [h w 3] uint8.
        settings: columns of each setting, `results.columns.SETTING`.
        masks: patches whose tokens are left at the end, by setting, [m rows columns] bool.
    """

    pixels: np.ndarray
    settings: Sequence[Mapping[str, Any]]
    masks: np.ndarray


def write_kept_image(image: KeptImage, folder: Path) -> Path:
    """Write the data into a results folder; return the file.

    Raises:
        OutputError: it cannot be written.
    """
    path = folder / KEPT_IMAGE
    settings = np.array(json.dumps([dict(one) for one in image.settings]))
    with atomic_write(path) as place, place.open("wb") as file:
        np.savez_compressed(file, pixels=image.pixels, masks=image.masks, settings=settings)
    return path


def read_kept_image(folder: Path) -> KeptImage:
    """Return the data of a results folder.

    Raises:
        ValueError: there is none, or of another format.
    """
    path = folder / KEPT_IMAGE
    if not path.is_file():
        raise ValueError(f"no kept patches at {path}")
    try:
        # Not from its path: numpy leaves a damaged file open.
        with np.load(io.BytesIO(read_file(path))) as content:
            settings = _SETTINGS.validate_json(str(content["settings"]), strict=True)
            image = KeptImage(content["pixels"], settings, content["masks"])
    except ValidationError as error:
        raise ValueError(f"{path}: settings: {first_fault(error)}") from None
    except _DAMAGED as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    pixels, masks = image.pixels, image.masks
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
        raise ValueError(f"{path}: pixels must be uint8 [h w 3], got {_shape(pixels)}")
    if masks.dtype != bool or masks.ndim != 3 or len(masks) != len(settings) or not masks.size:
        raise ValueError(f"{path}: masks must be bool [settings rows columns], got {_shape(masks)}")
    return image


def _shape(array: np.ndarray) -> str:
    return f"{array.dtype} {list(array.shape)}"
