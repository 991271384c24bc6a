"""Arithmetic in the precision and on the device that it asks for, whatever surrounds it."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

_DEVICES = ("cpu", "cuda", "xpu", "mps")


@contextmanager
def without_outer_settings() -> Iterator[None]:
    """In this context torch computes as if nothing had been set around it.

    - `torch.autocast` changes nothing: a model may run under it, as transformers' trainer and many
      evaluation scripts do, and products of float32 matrices would be rounded to half precision.
    - New tensors without a dtype are float32, whatever `torch.set_default_dtype` says; that holds
      for all threads of the process, and for the time of the context.
    - New tensors without a device are on the CPU, whatever `torch.set_default_device` says.

    Otherwise other tokens would be kept.
    """
    dtype = torch.get_default_dtype()
    with ExitStack() as stack:
        for device in _DEVICES:
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        stack.enter_context(new_tensors_on_cpu())
        if dtype != torch.float32:
            torch.set_default_dtype(torch.float32)
            stack.callback(torch.set_default_dtype, dtype)
        yield


@contextmanager
def new_tensors_on_cpu() -> Iterator[None]:
    """In this context new tensors without a device are on the CPU.

    `torch.set_default_device` would put them elsewhere; indices are worked out on the CPU.
    """
    with ExitStack() as stack:
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        yield
