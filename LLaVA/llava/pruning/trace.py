"""What one call did, for those who ask."""

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
            block.
        lengths: tokens of each row that enter each decoder layer, padding not counted.
        truncated: tokens cut off the end of each row by ``tokenizer_model_max_length``.
    """

    visual: list[int] = field(default_factory=list)
    kept: dict[int, list[Tensor]] = field(default_factory=dict)
    lengths: list[list[int]] = field(default_factory=list)
    truncated: list[int] = field(default_factory=list)

    def begin(self, visual: list[int], truncated: list[int], kept: list[Tensor] | None) -> None:
        """Forget an earlier call; note the batch, and what was kept before the language model."""
        self.visual[:] = visual
        self.truncated[:] = truncated
        self.lengths.clear()
        self.kept.clear()
        if kept is not None:
            self.kept[0] = kept
