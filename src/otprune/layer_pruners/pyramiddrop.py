"""PyramidDrop: drop visual tokens in stages, by the question's attention (arXiv 2410.17247)."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from otprune.layer_pruner import Kept, LayerPruner, LayerView, question_rows, top
from otprune.schedule import parse_schedule


@dataclass(frozen=True, slots=True)
class PyramidDrop(LayerPruner):
    """The attention of the layer about to run from the question's last token, mean over heads.

    Source: arXiv 2410.17247 (CVPR 2025). Stages of equal length, each with half of the tokens of
    the one before. The released lists count layers from 1, "after layer r", which is the input of
    0-based layer r; the score uses norm and projections of that layer, as here. Shares count the
    image's tokens before any pruning and are rounded down; positions are renumbered after each
    stage.

    Limits of the released code that do not hold here: no batches, no eager attention, only a
    prompt's first image is pruned, prompts are cut at 2048 positions.

    Ours: where a given answer follows the question, the row is that of the last token before it;
    where no text follows the image, that of the image's last token.
    With the default layers a model of 32 layers processes at least a quarter of the tokens on
    average; smaller budgets need other layers, of which the authors publish none.

    Cost O(h t c) a stage for h heads of c channels and t positions; ties go to the lower index.

    Attributes:
        schedule: layers and the shares that are kept.
    """

    positions: ClassVar[Literal["original", "compact"]] = "compact"

    schedule: str = "8:0.5/16:0.25/24:0.125"

    def __post_init__(self) -> None:
        """Check the settings."""
        parse_schedule(self.schedule, least=1)

    def _prune(self, view: LayerView, k: int) -> Kept:
        attention = view.probe.attention(view.layer, question_rows(view)[-1:])
        return top(attention[:, 0, view.visual].mean(0), k)
