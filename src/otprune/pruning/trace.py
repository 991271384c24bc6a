"""What one call did, for those who ask."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

from torch import Tensor


@dataclass
class Trace:
    """Filled by `forward` and `generate` when given as ``trace``; images in order of the prompts.

    Attributes:
        visual: number of visual tokens of each image before pruning.
        kept: for each layer with a stage, the kept tokens of each image, numbered as before any
            pruning, in the order in which they stand in the sequence; on the CPU. None of an image
            that was cut off. Under ``compat="reference"`` one entry: the kept positions of the
            block. A merger's tokens have the number of the token in whose place they stand, or -1,
            which inside the language model becomes a number beyond the image's tokens; those merged
            there go on from the last number.
        scores: for each layer inside the language model whose method ranks by a score, that of each
            token of each image that was still there.
        lengths: tokens of each row that enter each decoder layer, padding not counted.
        truncated: tokens cut off the end of each row by ``tokenizer_model_max_length``.
        watch: entered around all that chooses or merges tokens, for who takes times.
    """

    visual: list[int] = field(default_factory=list)
    kept: dict[int, list[Tensor]] = field(default_factory=dict)
    scores: dict[int, list[Tensor | None]] = field(default_factory=dict)
    lengths: list[list[int]] = field(default_factory=list)
    truncated: list[int] = field(default_factory=list)
    watch: Callable[[], AbstractContextManager[None]] | None = None

    def begin(self, visual: list[int], truncated: list[int], kept: list[Tensor] | None) -> None:
        """Forget an earlier call; note the batch, and what was kept before the language model."""
        self.visual[:] = visual
        self.truncated[:] = truncated
        self.lengths.clear()
        self.kept.clear()
        self.scores.clear()
        if kept is not None:
            self.kept[0] = kept


def watched(trace: Trace | None) -> AbstractContextManager[None]:
    """Return what to enter around a choice of tokens."""
    return nullcontext() if trace is None or trace.watch is None else trace.watch()
