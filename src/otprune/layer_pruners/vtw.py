"""VTW: drop all visual tokens after some layer (arXiv 2405.05803)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from otprune.layer_pruner import Kept, LayerPruner, LayerView
from otprune.schedule import parse_schedule


@dataclass(frozen=True, slots=True)
class VTW(LayerPruner):
    """The first K layers process all visual tokens, the others none.

    Source: arXiv 2405.05803 (AAAI 2025), "visual tokens withdrawal": by then the text tokens hold
    the image's information. The paper finds K on a few examples, by the divergence of the answers'
    distribution; here K is given. Text tokens keep their positions.

    Ours: a target determines the layer, since there are no amounts to scale: the K whose cost is
    nearest, so that the total may exceed the target by up to half a layer.

    Cost O(1); nothing is ranked.

    Attributes:
        schedule: "K:0". Presets "table1" and "table1_llava16" are inferred from the costs that
            DivPrune and OTPrune (Table 1) print for VTW with LLaVA-1.5 (7B and 13B) and LLaVA-1.6.
    """

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "table1": {"schedule": "4:0"},
        "table1_llava16": {"schedule": "3:0"},
    }

    schedule: str = "16:0"

    def __post_init__(self) -> None:
        """Check the settings."""
        points = parse_schedule(self.schedule, least=1)
        if len(points) != 1 or points[0].amount:
            raise ValueError(f"schedule must be K:0 for VTW, got {self.schedule!r}")

    def plan(
        self, n: int, layers: int, target: float | None, cost: Callable[[int], float]
    ) -> dict[int, int]:
        """Return ``{K: 0}`` for the layer K at which all tokens are dropped.

        Raises:
            ValueError: a target below half a layer's cost.
        """
        if target is None:
            return {self.points[0].layer: 0}
        layer = round((target - layers * cost(0)) / (cost(n) - cost(0)))
        if layer >= layers:
            return {self.points[0].layer: n}
        if layer < 1:
            raise ValueError(
                f"the budget is out of reach: VTW runs at least one of {layers} layers with all "
                f"{n} tokens, which is {n / layers:.1f} of them on average"
            )
        return {layer: 0}

    def _prune(self, view: LayerView, k: int) -> Kept:
        return Kept(view.visual.new_empty(0))
