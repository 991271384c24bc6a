"""FastV: keep the tokens that the last token attends to at an early layer (arXiv 2403.06764)."""

from dataclasses import dataclass
from typing import Any, ClassVar

from otprune.layer_pruner import Kept, LayerPruner, LayerView, question_rows, top
from otprune.schedule import parse_schedule


@dataclass(frozen=True, slots=True)
class FastV(LayerPruner):
    """The attention of layer K - 1 from the question's last token, mean over heads.

    Source: arXiv 2403.06764 (ECCV 2024). Pruned once, at the input of 0-based layer K, with the
    attention of the layer before. The remaining tokens keep their rotary positions.

    ``int(share * n)`` tokens are kept, as in the released key-value-cache version; the version
    built on the transformers library rounds. Not reproduced from the released code: image positions
    fixed at 35..610, one image's choice for a whole batch, layer K - 1 run twice with its keys
    stored twice, random tokens for K = 0 (here layers start at 1).

    Ours: only the one row of attention is computed, which works with any attention implementation;
    where a given answer follows the question, the row is that of the last token before it, and
    where no text follows the image, that of the image's last token; a schedule of several points
    prunes at each of them.

    Cost O(h t c) for h heads of c channels and t positions; ties go to the lower index.

    Attributes:
        schedule: "K:share", the share that is *kept*, 1 - R of the paper; or "K:count". Preset "k3"
            is that of the authors' table made with lmms-eval. Presets "table1_7b", "table1_13b" and
            "table1_llava16" are inferred from the costs that DivPrune and OTPrune (Table 1) print
            for FastV: one, 13 and two tokens.
    """

    looks_back: ClassVar[bool] = True
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "k3": {"schedule": "3:0.5"},
        "table1_7b": {"schedule": "3:1"},
        "table1_13b": {"schedule": "3:13"},
        "table1_llava16": {"schedule": "3:2"},
    }

    schedule: str = "2:0.5"

    def __post_init__(self) -> None:
        """Check the settings."""
        parse_schedule(self.schedule, least=1)

    def _prune(self, view: LayerView, k: int) -> Kept:
        attention = view.probe.attention(view.layer - 1, question_rows(view)[-1:])
        return top(attention[:, 0, view.visual].mean(0), k)
