"""The peak memory of a call: of the GPUs, or without any of this process."""

import ctypes
import resource
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

_CLEAR = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")


@dataclass(frozen=True, slots=True)
class Peak:
    """Memory around a call.

    Attributes:
        whole: peak in bytes while it ran, weights included; on a CPU the resident memory.
        added: bytes of it above the memory before the call; None if the system cannot reset the
            peak.
    """

    whole: int
    added: int | None


def peak_of(call: Callable[[], object], gpus: Sequence[torch.device]) -> Peak:
    """Return the peak memory of a call, summed over ``gpus``, or of the process if there are none.

    Memory of unreachable reference cycles counts as used before; call `gc.collect` to free it.
    """
    return _gpu_peak(call, gpus) if gpus else _process_peak(call)


def _gpu_peak(call: Callable[[], object], gpus: Sequence[torch.device]) -> Peak:
    for gpu in gpus:
        torch.cuda.synchronize(gpu)
        torch.cuda.reset_peak_memory_stats(gpu)
    before = sum(torch.cuda.memory_allocated(gpu) for gpu in gpus)
    call()
    for gpu in gpus:
        torch.cuda.synchronize(gpu)
    whole = sum(torch.cuda.max_memory_allocated(gpu) for gpu in gpus)
    return Peak(whole, whole - before)


def _process_peak(call: Callable[[], object]) -> Peak:
    _hand_back()
    before = _high_water() if _reset() else None
    call()
    whole = _high_water()
    return Peak(whole, None if before is None else whole - before)


def _hand_back() -> None:
    """Return freed memory to the system; a call that reuses it would seem to need none."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _reset() -> bool:
    """Reset the peak of resident memory to the current value; return whether that worked."""
    try:
        # Linux: 5 resets the high-water mark.
        _CLEAR.write_text("5")
    except OSError:
        return False
    return True


def _high_water() -> int:
    try:
        lines = _STATUS.read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    for line in lines:
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
