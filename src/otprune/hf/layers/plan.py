"""What a prefill that is pruned inside the decoder must be given."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from jaxtyping import Bool, Int64
from torch import Tensor

from otprune.hf.layers.rows import Side
from otprune.merger import Merger
from otprune.pruning.image_tokens import ImageTokens
from otprune.pruning.questions import QuestionSignals
from otprune.pruning.settings import Pruning
from otprune.pruning.trace import Trace


@dataclass(frozen=True, slots=True)
class BatchLayout:
    """What each position of a batch is, as the batch enters the decoder's first layer.

    Attributes:
        attention_mask: which positions are no padding, [b t].
        position_ids: rotary positions, 0 at padding: [b t]; or [3 b t] (time, height, width) or
            [4 b t] (text positions first) for decoders with multimodal rotary embedding.
        image_of: number of the image that a position belongs to, -1 elsewhere; [b t] on the CPU.
        token_of: number of the visual token among its image's tokens before pruning, -1 elsewhere;
            new tokens that take no token's place have numbers beyond the image's. [b t] on the CPU.
        question: which positions are text after the row's last image; [b t] on the CPU.
        answer: which positions after the row's last image are a given answer, by which nothing may
            be chosen; [b t] on the CPU.
        side: where the padding is.
    """

    attention_mask: Bool[Tensor, "b t"]
    position_ids: Int64[Tensor, "b t"] | Int64[Tensor, "m b t"]
    image_of: Int64[Tensor, "b t"]
    token_of: Int64[Tensor, "b t"]
    question: Bool[Tensor, "b t"]
    answer: Bool[Tensor, "b t"]
    side: Side


@dataclass(frozen=True)
class LayerPlan:
    """What is needed inside the decoder to prune a batch of prompts.

    Attributes:
        pruning: the settings.
        batch: the prompts as they enter the first layer.
        images: visual tokens of each image before any pruning, in the order of the prompts.
        image_ids: ids of the images, for seeded methods.
        questions: the question of each prompt.
        budgets: for each image how many tokens are kept from which layers on.
        trace: filled if given.
        key: identifies the plan that a cache was filled under, without keeping its tensors.
    """

    pruning: Pruning
    batch: BatchLayout
    images: Sequence[ImageTokens]
    image_ids: Sequence[int | None]
    questions: Sequence[QuestionSignals]
    budgets: Sequence[dict[int, int]]
    trace: Trace | None = None
    key: object = field(default_factory=object)

    @property
    def layers(self) -> frozenset[int]:
        """Layers at whose input tokens are dropped; layer 0 stands for before the decoder."""
        return frozenset(layer for budget in self.budgets for layer in budget if layer)

    @property
    def wants_signals(self) -> bool:
        """Whether methods get signals about tokens; after a merger there are none.

        Those that come with every image, as grid and padding, are for methods without ``needs``.
        """
        return not isinstance(self.pruning.before, Merger)
