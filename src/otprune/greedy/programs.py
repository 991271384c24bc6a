"""Programs for GPUs in place of loops: where they may be used. Each is one file `triton_...`.

Triton is optional, and what it compiles depends on the GPU and its driver. So a program is used
only after its picks on a sample were those of the loop that it stands for, once for each device and
dtype. Why one is not used is logged.
"""

import logging
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from jaxtyping import Bool, Float, Int32
from torch import Tensor

logger = logging.getLogger(__name__)

LARGEST = 4096
"""Tokens of an image up to which a program makes its picks."""

BYTES = 1 << 30
"""Bytes of matrices held for a launch; more images follow in further launches."""

Program = TypeVar("Program")


def go_together(images: Sequence[Tensor], dtype: torch.dtype) -> bool:
    """Return whether programs may make the picks of images whose work is done in ``dtype``."""
    usual = dtype in (torch.float32, torch.float64)
    one_device = len({image.device for image in images}) == 1
    return one_device and images[0].device.type == "cuda" and usual and _longest(images) <= LARGEST


def _longest(images: Sequence[Tensor]) -> int:
    return max(map(len, images))


def padded(images: Sequence[Tensor], dtype: torch.dtype) -> Float[Tensor, "b n d"]:
    """Return images [n_i d_i] in one tensor, zeros behind the end of each."""
    if len({(image.shape, image.dtype) for image in images}) == 1:
        return torch.stack(list(images)).to(dtype)
    width = max(image.shape[1] for image in images)
    together = images[0].new_zeros(len(images), _longest(images), width, dtype=dtype)
    for whole, image in zip(together, images, strict=True):
        whole[: len(image), : image.shape[1]] = image
    return together


def on_device(counts: Sequence[int], like: Tensor) -> Int32[Tensor, " b"]:
    """Return counts as a tensor; filled there, since copying a list would wait for the device."""
    filled = [torch.full((1,), one, dtype=torch.int32, device=like.device) for one in counts]
    return torch.cat(filled)


def behind(sizes: Sequence[int], like: Float[Tensor, "b n _"]) -> Bool[Tensor, "b n"]:
    """Return which places of padded images are behind the last token."""
    places = torch.arange(like.shape[1], device=like.device)
    return places >= on_device(sizes, like)[:, None]


def in_parts(count: int, at_once: int) -> list[slice]:
    """Return slices of at most ``at_once`` that cover ``count``."""
    return [slice(start, start + at_once) for start in range(0, count, at_once)]


def can_run(tensor: Tensor, n: int) -> bool:
    """Return whether programs may make picks from numbers like these, of images of n tokens."""
    usual = tensor.dtype in (torch.float32, torch.float64)
    return tensor.device.type == "cuda" and usual and n <= LARGEST


def images_at_once(numbers: int, dtype: torch.dtype) -> int:
    """Return for how many images so many numbers each may be held together, at least one."""
    return max(1, BYTES // (numbers * dtype.itemsize))


def checked(load: Callable[[], Program], agrees: Callable[[Program], bool]) -> Program | None:
    """Return a program if it can be imported and run, and agrees with its loop; else None.

    Args:
        load: imports and returns it.
        agrees: whether its picks on a sample are those of its loop.
    """
    try:
        # Not there without CUDA, see `triton_program`.
        from triton.errors import TritonError  # type: ignore[import-not-found]

        program = load()
    except ImportError:
        logger.info("selection on a GPU runs in a loop: there is no triton")
        return None
    try:
        same = agrees(program)
    except (TritonError, RuntimeError, OSError, ValueError) as error:
        logger.warning("selection on a GPU runs in a loop: triton fails, %s", error)
        return None
    if not same:
        logger.warning("selection on a GPU runs in a loop: triton's picks differ from its own")
        return None
    return program
