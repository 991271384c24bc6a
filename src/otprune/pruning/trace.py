"""A record of what one call pruned."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

from torch import Tensor


@dataclass
class Trace:
    """What a call of `forward` or `generate` did; the call fills the ``trace`` that it is given.

    Images are in the order of the prompts.

    Attributes:
        visual: number of visual tokens of each image before pruning.
        kept: for each layer with a stage, the numbers of each image's kept tokens among its tokens
            before any pruning, in the order in which they stand in the sequence; on the CPU. Empty
            for an image that was cut off. A merger's tokens have the number of the token whose
            place they take, or -1; inside the language model, -1 becomes a number beyond the
            image's tokens, and tokens that are merged there are numbered after those. Under
            ``compat="reference"`` there is one entry: the kept positions of the pruned block.
        scores: for each layer inside the language model whose method ranks by a score, the scores
            of the tokens of each image that remained before that layer.
        lengths: for each decoder layer, how many positions of each row enter it, without padding.
        truncated: positions cut off the end of each row by ``tokenizer_model_max_length``.
        watch: entered around everything that chooses or merges tokens, so that it can be timed.
    """

    visual: list[int] = field(default_factory=list)
    kept: dict[int, list[Tensor]] = field(default_factory=dict)
    scores: dict[int, list[Tensor | None]] = field(default_factory=dict)
    lengths: list[list[int]] = field(default_factory=list)
    truncated: list[int] = field(default_factory=list)
    watch: Callable[[], AbstractContextManager[None]] | None = None

    def begin(self, visual: list[int], truncated: list[int], kept: list[Tensor] | None) -> None:
        """Forget an earlier call; record the batch, and what was kept before the language model."""
        self.visual[:] = visual
        self.truncated[:] = truncated
        self.lengths.clear()
        self.kept.clear()
        self.scores.clear()
        if kept is not None:
            self.kept[0] = kept


def watched(trace: Trace | None) -> AbstractContextManager[None]:
    """Return the context to enter around a choice of tokens; a null context without a watch."""
    return nullcontext() if trace is None or trace.watch is None else trace.watch()
