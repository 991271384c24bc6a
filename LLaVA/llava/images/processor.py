"""Turn an image into one tile of pixel values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from transformers import BatchFeature

from llava.images.reading import ImageError, as_rgb
from llava.images.squares import MOST_PIXELS, resized_square

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class ImageProcessor:
    """Resize, crop and normalise with the bits that transformers' slow processors return.

    PIL resamples 8-bit pixels. Each value is then divided in float64, rounded to float32, and
    normalised in float32; the results are in a table of 256 values for each channel.

    Attributes:
        side: pixels of the tile's sides.
        fit: "shortest_edge" scales the shorter side to ``resize_to`` and crops the middle; "exact"
            scales both sides to ``side`` without regard to the aspect ratio (SigLIP).
        resize_to: length of the shorter side before the crop; ``side`` if not given.
        image_mean: mean of each channel after division by 255.
        image_std: standard deviation of each channel after division by 255.
        resample: PIL's number of the filter; 3 is bicubic.
        rescale_factor: factor of the 8-bit values.
    """

    side: int = 336
    fit: Literal["shortest_edge", "exact"] = "shortest_edge"
    resize_to: int | None = None
    image_mean: Sequence[float] = CLIP_MEAN
    image_std: Sequence[float] = CLIP_STD
    resample: int = 3
    rescale_factor: float = 1 / 255
    _table: np.ndarray = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check the settings and make the table of normalised values."""
        if self.side < 1 or (self.resize_to is not None and self.resize_to < 1):
            raise ValueError(f"side and resize_to must be at least 1, got {self}")
        if len(self.image_mean) != 3 or len(self.image_std) != 3:
            raise ValueError(f"image_mean and image_std must have three entries, got {self}")
        scaled = (np.arange(256, dtype=np.float64) * self.rescale_factor).astype(np.float32)
        mean = np.array(self.image_mean, dtype=np.float32)
        std = np.array(self.image_std, dtype=np.float32)
        object.__setattr__(self, "_table", ((scaled[:, None] - mean) / std).T.copy())

    @property
    def crop_size(self) -> dict[str, int]:
        """Sides of the tile, as LLaVA's users read them."""
        return {"height": self.side, "width": self.side}

    @property
    def size(self) -> dict[str, int]:
        """Length of the shorter side before the crop, or both sides where there is no crop."""
        if self.fit == "exact":
            return self.crop_size
        return {"shortest_edge": self.resize_to or self.side}

    @property
    def background(self) -> tuple[int, int, int]:
        """Mean colour, rounded down, with which the original pads."""
        red, green, blue = (int(mean * 255) for mean in self.image_mean)
        return red, green, blue

    def tile(self, image: Image.Image) -> Float[Tensor, "3 side side"]:
        """Return the pixel values of one image, float32.

        Raises:
            ImageError: no image, no pixels; sides so unequal that the scaled image would have more
                than `MOST_PIXELS`.
        """
        pixels = np.asarray(self._fitted(as_rgb(image)))
        values = np.empty((3, self.side, self.side), dtype=np.float32)
        for channel in range(3):
            np.take(self._table[channel], pixels[:, :, channel], out=values[channel])
        return torch.from_numpy(values)

    def preprocess(
        self, images: Image.Image | Sequence[Image.Image], return_tensors: str = "pt"
    ) -> BatchFeature:
        """Return ``pixel_values`` [b 3 side side] of one or several images.

        Raises:
            ValueError: ``return_tensors`` other than "pt".
            ImageError: an object that is no image, or an image without pixels.
        """
        if return_tensors != "pt":
            raise ValueError(f"return_tensors must be 'pt', got {return_tensors!r}")
        several = [images] if isinstance(images, Image.Image) else images
        return BatchFeature({"pixel_values": torch.stack([self.tile(one) for one in several])})

    __call__ = preprocess

    def padded_tile(self, image: Image.Image) -> Float[Tensor, "3 side side"]:
        """Return the pixel values of one image in the middle of a square of the mean colour.

        Raises:
            ImageError: no image, no pixels; a side longer than `LONGEST_SIDE`.
        """
        side = self.size.get("shortest_edge", self.side)
        return self.tile(resized_square(as_rgb(image), self.background, side, self.resample))

    def _fitted(self, image: Image.Image) -> Image.Image:
        if self.fit == "exact":
            return image.resize((self.side, self.side), self.resample)
        width, height = image.size
        short = self.resize_to or self.side
        long = int(short * max(width, height) / min(width, height))
        if short * long > max(MOST_PIXELS, width * height):
            raise ImageError(
                f"the image's size is {width} x {height}: with a shorter side of {short} it would "
                f"have {short * long} pixels, at most {MOST_PIXELS} can be"
            )
        scaled = (short, long) if width <= height else (long, short)
        image = image.resize(scaled, self.resample)
        left, top = ((length - self.side) // 2 for length in scaled)
        return image.crop((left, top, left + self.side, top + self.side))


def processor_from_config(config: Mapping[str, Any]) -> ImageProcessor:
    """Return the processor that a ``preprocessor_config.json`` describes.

    Raises:
        ValueError: a step is switched off, tiles are not square, sizes have an unknown form.
    """
    for step in ("do_resize", "do_rescale", "do_normalize"):
        if not config.get(step, True):
            raise ValueError(f"{step} must be true, got {config[step]!r}")
    size = config.get("size", 224)
    cropped = config.get("do_center_crop", "crop_size" in config)
    fields = {
        "image_mean": tuple(config.get("image_mean", CLIP_MEAN)),
        "image_std": tuple(config.get("image_std", CLIP_STD)),
        "resample": int(config.get("resample", 3)),
        "rescale_factor": float(config.get("rescale_factor", 1 / 255)),
    }
    if isinstance(size, Mapping) and "shortest_edge" not in size:
        return ImageProcessor(side=_square("size", size), fit="exact", **fields)
    shortest = size["shortest_edge"] if isinstance(size, Mapping) else size
    if not cropped:
        raise ValueError("a shortest edge without a centre crop gives tiles that are not square")
    return ImageProcessor(
        side=_square("crop_size", config.get("crop_size", shortest)),
        resize_to=int(shortest),
        **fields,
    )


def _square(name: str, size: object) -> int:
    if isinstance(size, int):
        return size
    if isinstance(size, Mapping) and size.get("height") == size.get("width") is not None:
        return int(size["height"])
    raise ValueError(f"{name} must be one number or equal height and width, got {size!r}")
