"""Input checks; their messages name the argument, the rule and the value."""

import math
import re
from collections.abc import Sequence

import torch
from torch import Tensor


def check_choice(argument: str, value: object, choices: Sequence[str]) -> None:
    """Raise ``ValueError`` unless ``value`` is one of ``choices``."""
    if value not in choices:
        raise ValueError(f"{argument} must be one of {', '.join(choices)}; got {value!r}")


def check_positive(argument: str, value: object) -> None:
    """Raise ``ValueError`` unless ``value`` is a finite number above zero."""
    number = value if isinstance(value, int | float) and not isinstance(value, bool) else -1
    if not 0 < number < math.inf:
        raise ValueError(f"{argument} must be a finite number > 0, got {value!r}")


def check_count(argument: str, value: object, least: int = 0) -> None:
    """Raise ``ValueError`` unless ``value`` is an integer of at least ``least``."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{argument} must be an integer >= {least}, got {value!r}")


def check_device_name(value: object, name: str = "device") -> str:
    """Return a device's name: cpu, mps, cuda or cuda:N.

    Raises:
        ValueError: another value. Whether the device is there is for `check_device` to say.
    """
    text = str(value)
    if not re.fullmatch(r"cpu|mps|cuda(:[0-9]{1,4})?", text):
        raise ValueError(f"{name} must be cpu, cuda, cuda:N or mps, got {text!r}")
    return text


def check_device(value: object, name: str = "device") -> str:
    """Return a device's name if this machine has the device.

    Raises:
        ValueError: no device's name, or a device that is not there.
    """
    text = check_device_name(value, name)
    kind, _, number = text.partition(":")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise ValueError(f"{name} must be one that is there, got mps: there is no such device here")
    if kind == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if not count:
            raise ValueError(
                f"{name} must be one that is there, got {text}: there is no CUDA device here, cpu "
                "works"
            )
        if int(number or 0) >= count:
            raise ValueError(
                f"{name} must be in cuda:0..cuda:{count - 1}, the CUDA devices here, got {text}"
            )
    return text


def check_tokens(tokens: object, name: str = "tokens") -> None:
    """Raise ``ValueError`` unless ``tokens`` is a floating-point matrix [n d], finite in float32.

    One pass over the data: the sum of a matrix is finite only if no entry is NaN or infinite (an
    overflowing sum is checked again entry by entry).
    """
    check_batch_of_tokens([tokens], [name])


def check_batch_of_tokens(tokens: Sequence[object], names: Sequence[str]) -> None:
    """Check the tokens of several images as `check_tokens`; the first that is wrong is named.

    The host waits once for the device of a batch, not once for each image.
    """
    totals: dict[torch.device, list[Tensor]] = {}
    for image, name in zip(tokens, names, strict=True):
        matrix = _check_matrix(image, name)
        totals.setdefault(matrix.device, []).append(matrix.sum(dtype=torch.float32))
    if all(bool(torch.stack(sums).isfinite().all()) for sums in totals.values()):
        return
    for image, name in zip(tokens, names, strict=True):
        if isinstance(image, Tensor):
            _check_finite(image, name)


def _check_matrix(tokens: object, name: str) -> Tensor:
    """Return ``tokens``, a floating-point matrix [n d] with at least one entry."""
    if not isinstance(tokens, Tensor):
        raise ValueError(f"{name} must be a tensor [n d], got {type(tokens).__name__}")
    if tokens.ndim != 2:
        raise ValueError(f"{name} must have two axes [n d], got shape {tuple(tokens.shape)}")
    if not tokens.is_floating_point():
        raise ValueError(f"{name} must be floating point, got {tokens.dtype}")
    if tokens.shape[0] == 0 or tokens.shape[1] == 0:
        raise ValueError(
            f"{name} must have at least one token and one channel, got shape {tuple(tokens.shape)}"
        )
    return tokens


def _check_finite(tokens: Tensor, name: str) -> None:
    bad = (~torch.isfinite(tokens.float())).nonzero().tolist()
    if bad:
        row, column = bad[0]
        raise ValueError(
            f"{name} must be finite, got {tokens[row, column].item()} at token {row}, "
            f"channel {column}"
        )
