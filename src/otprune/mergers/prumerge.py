"""PruMerge and PruMerge+: neighbours are added to kept patches (arXiv 2403.15388)."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from otprune.budget import check_keep_ratio
from otprune.checks import check_choice
from otprune.kernels import unit_rows
from otprune.merger import Merger, Mixture
from otprune.signals import Signals
from otprune.tiles import share_out, tile_groups
from otprune.types import VisualTokens

_NEIGHBOURS = 32


@dataclass(frozen=True, slots=True)
class PruMerge(Merger):
    """Patches that CLS attends to, each with its 32 nearest neighbours added, and one token more.

    Source: arXiv 2403.15388 (ICCV 2025), sec. 3, and its released code. Features before the
    projector; attention a of CLS and keys of the vision encoder's last block, all channels as one
    head. A kept patch becomes x_i + Σ a_j x_j over the 32 other patches with the nearest keys in
    cosine, kept ones included; the weights do not sum to 1. The last token is Σ a_j x_j over the
    patches that are not kept. Order: attention descending, then the patches that "+" adds, then the
    last token.

    The released method has no budget: it keeps the outliers of attention, those above the third
    quartile by more than 1.5 times the interquartile range, which are 5 to 57 of 576 patches in our
    cases; "+" adds patches at an even stride, about three for each outlier. ``adaptive=True`` does
    that; k is then an upper bound, and the first k - 1 in order are kept. An image without outliers
    gives the last token alone; "+" fails there in the code.

    With a budget, which is ours, k - 1 patches are kept: those with the most attention; under
    ``plus`` a ``top_share`` of them, and others evenly spaced among the remaining patches.
    ``repeats`` reproduces the training setting of the released "+" instead: all patches at the
    stride int(n / top), from half a stride on, even those kept already. A patch that is kept twice
    gives two tokens, and an equal number of patches, the first that are not kept, then takes no
    part as neighbours or in the last token.

    Tiles are merged separately, with k divided evenly; the released code supports one tile. Newline
    tokens are left out, so an image never has more new tokens than patches. O(nkc).

    Attributes:
        plus: keep patches at an even stride as well.
        adaptive: keep the outliers of attention, up to k tokens.
        top_share: under ``plus`` with a budget, the share of kept patches chosen by attention.
        repeats: see above; needs ``plus`` and a budget.
        block: the block of attention and keys. "final": the vision encoder's last, as released;
            "selected": the one whose output is used, with attention averaged over heads.
    """

    space: ClassVar[Literal["tokens", "features"]] = "features"
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "released": {"adaptive": True},
        "plus": {"plus": True},
        "plus-released": {"plus": True, "adaptive": True},
        "plus-training": {"plus": True, "top_share": 0.5, "repeats": True},
    }

    plus: bool = False
    adaptive: bool = False
    top_share: float = 0.25
    repeats: bool = False
    block: Literal["final", "selected"] = "final"

    def __post_init__(self) -> None:
        """Check the settings."""
        for name in ("plus", "adaptive", "repeats"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} must be true or false, got {getattr(self, name)!r}")
        check_keep_ratio(self.top_share, "top_share")
        if self.repeats and (self.adaptive or not self.plus):
            raise ValueError("repeats=True needs plus=True and adaptive=False")
        check_choice("block", self.block, ("final", "selected"))

    @property
    # A property where the class attribute of `Method` is a constant: it depends on a setting.
    def needs(self) -> frozenset[str]:  # type: ignore[override]
        """Signals of the block that is used."""
        if self.block == "final":
            return frozenset({"final_cls_attention", "final_keys", "features"})
        return frozenset({"cls_attention", "encoder_keys", "features"})

    def _merge_image(self, tokens: VisualTokens, k: int, signals: Signals) -> Mixture:
        attention, keys = self._read(signals)
        groups = tile_groups(signals, len(tokens))
        sizes = [len(group) for group in groups]
        places, weights = [], []
        for group, share in zip(groups, share_out(min(k, sum(sizes)), sizes), strict=True):
            if share == 0:
                continue
            group = group.to(tokens.device)
            kept = self.kept(attention[group], share)
            rows = _mix(kept, attention[group], keys[group])
            weights.append(rows.new_zeros(len(rows), len(tokens)).index_copy_(1, group, rows))
            places += [group[kept], kept.new_full((1,), -1)]
        return Mixture(torch.cat(places), torch.cat(weights))

    def _read(self, signals: Signals) -> tuple[Float[Tensor, " n"], Float[Tensor, "n c"]]:
        if self.block == "final":
            attention, keys = signals.final_cls_attention, signals.final_keys
        else:
            attention, keys = signals.cls_attention, signals.encoder_keys
            attention = None if attention is None else attention.float().mean(0)
        if attention is None or keys is None:
            raise ValueError(f"attention and keys of the {self.block} block must be given")
        return attention.float(), keys.float()

    def kept(self, attention: Float[Tensor, " n"], k: int) -> Int64[Tensor, " m"]:
        """Return the patches of a tile that are kept, in order, for at most ``k`` new tokens."""
        order = attention.argsort(descending=True, stable=True)
        n = len(order)
        if self.adaptive:
            top = self._outliers(attention)
            if not self.plus or top == 0:
                return order[: min(top, k - 1)]
            stride = max(1, n // top // 3)
            samples = torch.arange(0, n - 1, stride, device=order.device)
            samples = samples[~torch.isin(samples, order[:top])]
            return torch.cat([order[:top], samples])[: k - 1]
        if not self.plus:
            return order[: k - 1]
        top = math.ceil(self.top_share * (k - 1))
        left = k - 1 - top
        if self.repeats:
            stride = n // max(1, top)
            samples = torch.arange(stride // 2, n - 1, stride, device=order.device)
            return torch.cat([order[:top], samples[:left]])
        rest = order[top:].sort().values
        even = (2 * torch.arange(left, device=order.device) + 1) * len(rest) // (2 * max(1, left))
        return torch.cat([order[:top], rest[even]])

    @staticmethod
    def _outliers(attention: Float[Tensor, " n"]) -> int:
        low, high = attention.double().quantile(attention.new_tensor([0.25, 0.75]).double())
        return int((attention > high + 1.5 * (high - low)).sum())


def _mix(
    kept: Int64[Tensor, " m"], attention: Float[Tensor, " n"], keys: Float[Tensor, "n c"]
) -> Float[Tensor, "m+1 n"]:
    """Return the weights of the kept patches and of the last token."""
    n, m = len(attention), len(kept)
    is_kept = torch.zeros(n, dtype=torch.bool, device=kept.device).index_fill_(0, kept, True)
    dropped = (~is_kept).nonzero()[:, 0]
    # A patch that is kept twice is twice in the pool of neighbours, which has n entries always.
    dropped = dropped[m + len(dropped) - n :]
    pool, origin = torch.cat([kept, dropped]).sort(stable=True)
    weights = attention.new_zeros(m + 1, n)
    weights[m, dropped] = attention[dropped]
    if m == 0:
        return weights
    units = unit_rows(keys)
    similarity = units[kept] @ units[pool].T
    itself = origin == torch.arange(m, device=kept.device)[:, None]
    similarity = similarity.masked_fill(itself, float("-inf"))
    ranked = similarity.argsort(dim=1, descending=True, stable=True)
    near = pool[ranked[:, : min(_NEIGHBOURS, n - 1)]]
    weights[:m].scatter_add_(1, near, attention[near])
    weights[torch.arange(m, device=kept.device), kept] += 1.0
    return weights
