"""Arithmetic in the precision that it asks for, whatever surrounds it."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

_DEVICES = ("cpu", "cuda", "xpu", "mps")


@contextmanager
def without_autocast() -> Iterator[None]:
    """In this context `torch.autocast` changes nothing: float32 products stay float32.

    A model may run under autocast, as transformers' trainer and many evaluation scripts do. Inside
    it, products of float32 matrices are rounded to bfloat16 or float16, and other tokens are kept.
    """
    with ExitStack() as stack:
        for device in _DEVICES:
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        yield
