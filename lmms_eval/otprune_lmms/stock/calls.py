"""Calls of a pruned model: what they kept, and errors that no wrapper may answer with ""."""

import hashlib
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from otprune.hf.wrapping import replaced
from otprune.pruning import Trace

Function = Literal["generate", "forward"]


class PrunedCallError(BaseException):
    """An error in a call of a pruned model, its cause.

    Some wrappers catch every `Exception` of `generate` and go on with an empty answer, which would
    be scored; so this is none.
    """


@dataclass(slots=True)
class CallCounts:
    """Sums over calls.

    Attributes:
        calls: number of calls.
        images: number of images, tiles or prompts with a budget of their own.
        visual: visual tokens before pruning.
        kept: visual tokens after pruning, by the layer before which it took place.
        new_tokens: tokens that were generated.
        seconds: duration.
    """

    calls: int = 0
    images: int = 0
    visual: int = 0
    kept: Counter[int] = field(default_factory=Counter)
    new_tokens: int = 0
    seconds: float = 0.0

    def add(self, trace: Trace) -> None:
        """Add what a call kept."""
        self.calls += 1
        self.images += len(trace.visual)
        self.visual += sum(trace.visual)
        for layer, kept in trace.kept.items():
            self.kept[layer] += sum(map(len, kept))

    @property
    def visual_each(self) -> float:
        """Mean visual tokens of an image before pruning."""
        return self.visual / max(self.images, 1)

    @property
    def kept_each(self) -> float:
        """Mean visual tokens of an image after the last layer that prunes."""
        last = max(self.kept, default=None)
        kept = self.visual if last is None else self.kept[last]
        return kept / max(self.images, 1)


class ImageNumbers:
    """Numbers by which seeded methods tell the images of a call apart: of their pixels.

    Questions about one image get one number. In a batch it is also that of the others in it.
    """

    def __init__(self) -> None:
        self._first = 0

    def begin(self, call: Mapping[str, Any]) -> None:
        """Take in the arguments of a call."""
        digest = hashlib.sha256()
        for name in sorted(call):
            value = call[name]
            if name.startswith("pixel_values") and isinstance(value, Tensor):
                digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
                digest.update(value.contiguous().view(torch.uint8).cpu().numpy().tobytes())
        self._first = int(digest.hexdigest()[:12], 16)

    def __call__(self, count: int) -> list[int]:
        """Return so many numbers."""
        return list(range(self._first, self._first + count))


@contextmanager
def watched(
    model: Any, function: Function, trace: Trace, counts: CallCounts, numbers: ImageNumbers
) -> Iterator[None]:
    """Count the calls of a pruned model's function while a block runs.

    Logits of `forward` get the length of the caller's prompt again, see `_lengthened`.

    Raises:
        PrunedCallError: a call failed.
    """

    def call(original: Any, *args: Any, **kwargs: Any) -> Any:
        trace.begin([], [], None)
        numbers.begin(kwargs)
        begun = time.perf_counter()
        try:
            result = original(*args, **kwargs)
        except Exception as error:
            raise PrunedCallError(str(error)) from error
        counts.seconds += time.perf_counter() - begun
        counts.add(trace)
        prompt = kwargs.get("input_ids")
        if function == "forward":
            return _lengthened(result, prompt)
        counts.new_tokens += _generated(result, prompt)
        return result

    with replaced(model, function, call):
        yield


def _generated(result: Any, prompt: Tensor | None) -> int:
    ids = result if isinstance(result, Tensor) else result.sequences
    return ids.shape[0] * (ids.shape[1] - (0 if prompt is None else prompt.shape[1]))


def _lengthened(output: Any, prompt: Tensor | None) -> Any:
    """Return an output whose logits stand under the ids of the caller's prompt again.

    They are right after the last image; dropped tokens and what stands before them have zeros.
    """
    dropped = 0 if prompt is None else prompt.shape[1] - output.logits.shape[1]
    if dropped:
        logits = output.logits
        nothing = logits.new_zeros(logits.shape[0], dropped, logits.shape[2])
        output["logits"] = torch.cat([nothing, logits], dim=1)
    return output
