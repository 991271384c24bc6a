"""The costs that papers print, computed again from numbers of tokens: nothing is measured here.

Each source counts in its own way, which follows from its numbers:

- OTPrune's and DivPrune's tables: multiply-adds by "2ndm", typical text tokens of each benchmark
  (`experiments.cost.paper`).
- TransPrune's: multiply-adds by "3ndm" of the visual tokens alone; percentages are those of the
  numbers as they are printed, two decimals.
- TOPS' Table 4: the same, two operations a multiply-add.

All print them as "TFLOPs". A cell whose text tokens or schedule are not printed is not computed.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from otprune.cost import VICUNA_7B, prefill_multiply_adds
from otprune.pruning import Pruning, make_pruning
from otprune_lmms.experiments.cost.paper import Printed, lengths, printed_tflops

FULL_TOKENS = {"LLaVA-1.5-7B": 576, "LLaVA-NeXT-7B": 2880}
"""Visual tokens of an unpruned image in TransPrune's and TOPS' tables."""

_OURS = {
    "LLaVA-1.5-7B": "llava-1.5-7b",
    "LLaVA-1.5-13B": "llava-1.5-13b",
    "LLaVA-NeXT-7B": "llava-1.6-7b",
}
_SCHEDULES: Mapping[str, Callable[[Any], Pruning | None]] = {
    # Written as the layer and the share that stays.
    "FastV": lambda share: make_pruning("fastv", schedule=f"2:{share:g}"),
    "TransPrune High": lambda _: make_pruning("transprune", preset="high"),
    "TransPrune Low": lambda _: make_pruning("transprune", preset="low"),
    "+FastV": lambda _: make_pruning("fastv"),
    "+PDrop": lambda _: make_pruning("pyramiddrop"),
    "+TransPrune": lambda _: make_pruning("transprune", preset="high"),
}


@dataclass(frozen=True, slots=True)
class Cost:
    """A printed cost, computed again.

    Attributes:
        value: in the unit of the cell.
        how: from what.
    """

    value: float
    how: str

    def equals(self, printed: str) -> bool:
        """Whether the printed number is this one, to the digits that are printed."""
        digits = len(printed.partition(".")[2])
        return abs(self.value - float(printed)) <= 0.5001 * 10.0**-digits


def computed(line: Mapping[str, Any]) -> Cost | None:
    """Return the cost that a cell prints, from its setting; None if it does not follow from that.

    Args:
        line: of ``published/scores.csv``: of benchmark "tflops", "tflops_ratio" or "final_tokens".
    """
    source = str(line["source"])
    if line["benchmark"] == "final_tokens":
        return _final(line)
    if source.startswith(("OTPrune arXiv:2602.20205v2 Table 1", "DivPrune arXiv:2503.02175 Table")):
        return _typical(line, source)
    if source.startswith("TransPrune"):
        return _visual_only(line, 1.0)
    if source.startswith("TOPS"):
        return _visual_only(line, 2.0)
    return None


def _typical(line: Mapping[str, Any], source: str) -> Cost | None:
    model, kind = _OURS.get(str(line["model"])), line["budget_kind"]
    # In a layer the ablation's numbers fit no count of the layers before it.
    inside = str(line["variant"]).startswith("layer ") and line["variant"] != "layer 0"
    if model is None or kind not in ("full", "ratio") or inside:
        return None
    # DivPrune's ablations print four benchmarks.
    four = [task for task, one in lengths().items() if one.ablation]
    tasks = four if source.endswith(("Table 3", "Table 4")) else None
    ratio = 1.0 if kind == "full" else float(line["keep_tokens_or_ratio"])
    found: Printed = printed_tflops(model, ratio, tasks)
    value = found.pruned if line["benchmark"] == "tflops" else found.percent
    return Cost(value, "2ndm, typical text tokens")


def _visual_only(line: Mapping[str, Any], operations: float) -> Cost | None:
    n = FULL_TOKENS.get(str(line["model"]))
    tokens = None if n is None else _tokens(line, n)
    if n is None or tokens is None:
        return None
    pruned = operations * prefill_multiply_adds(VICUNA_7B, tokens, "3ndm") / 1e12
    if line["benchmark"] == "tflops":
        return Cost(pruned, "3ndm, visual tokens")
    full = operations * prefill_multiply_adds(VICUNA_7B, n, "3ndm") / 1e12
    return Cost(100 * round(pruned, 2) / round(full, 2), "of the TFLOPs as printed")


def _final(line: Mapping[str, Any]) -> Cost | None:
    n = FULL_TOKENS.get(str(line["model"]))
    tokens = None if n is None else _tokens(line, n)
    return None if tokens is None else Cost(float(tokens[-1]), "the schedule")


def _tokens(line: Mapping[str, Any], n: int) -> Sequence[int] | None:
    """Return the visual tokens of each layer, None where the setting does not say."""
    method, kind = str(line["method"]), line["budget_kind"]
    amount = line["keep_tokens_or_ratio"]
    layers = VICUNA_7B.layers
    if kind == "full":
        return [n] * layers
    before, plus, inside = method.partition("+")
    if kind == "tokens" and not plus and method not in _INSIDE:
        return [int(amount)] * layers
    if kind != "schedule":
        return None
    made = _SCHEDULES.get(f"{method} {line['variant']}".strip())
    if plus:
        made, n = _SCHEDULES.get(f"+{inside}"), int(amount)
    pruning = None if made is None else made(amount)
    return None if pruning is None else list(map(int, pruning.tokens_by_layer(n, VICUNA_7B)))


_INSIDE = ("FastV", "PDrop", "SparseVLM", "TransPrune", "TOPS")
"""Methods that prune inside the language model: their tokens are an average over layers."""
