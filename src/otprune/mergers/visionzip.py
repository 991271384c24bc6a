"""VisionZip: tokens that CLS attends to, and means of the others (arXiv 2412.04467)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from otprune.checks import check_choice, check_count
from otprune.kernels import unit_rows
from otprune.merger import Merger, Mixture, as_weights
from otprune.signals import Signals
from otprune.tiles import share_out, tile_groups
from otprune.types import VisualTokens

_Part = tuple[Int64[Tensor, " k"], Float[Tensor, "k m"]]
"""Places and weights of some new tokens."""


@dataclass(frozen=True, slots=True)
class VisionZip(Merger):
    """Dominant tokens unchanged, then contextual tokens, each merged from many; with CLS.

    Source: arXiv 2412.04467 (CVPR 2025), sec. 3, and its released code. Features before the
    projector. Dominant are the vision encoder's CLS token and the patches with the most attention
    of CLS, summed over heads. Of the other patches, C at an even stride are targets; all others are
    assigned to the target whose key (mean over heads) is most similar in cosine.

    Of k tokens, C = round(k * contextual_share) are contextual; the CLS token is one of the others.
    The default 10/64 gives the published 54 + 10 of 64, 108 + 20 of 128 and 162 + 30 of 192.

    - In the code a contextual token is its target *plus* the mean of the patches assigned to it;
      that is the default here. ``contextual_mean="average"`` is the average over all of them.
    - C = 0 fails in the code and works here; C is reduced to k - 1 if it is larger.
    - The code rebuilds LLaVA-1.6's sequence without its newline tokens; so does this class.

    Without a CLS token the attention is that which each token receives from all patches, mean over
    queries, all dominant tokens are patches, and the projected tokens are mixed: so the released
    code for Qwen2.5-VL, with attention and keys of the encoder's last block.

    Tiles are merged separately, with k divided evenly. Order: CLS, dominant ascending, contextual;
    of several tiles first those of the first tile, then of all others the dominant tokens in the
    order of the sequence, the CLS tokens, the contextual tokens. Newline tokens are left out, so an
    image never has more new tokens than patches. O(nC c + n log n), and O(nk) for the weights.

    Attributes:
        contextual: C of each tile; -1 for the share.
        contextual_share: C / k, below 1.
        contextual_mean: "code" or "average".
    """

    needs: ClassVar[frozenset[str]] = frozenset(
        {"cls_attention", "encoder_keys", "features", "cls_features"}
    )
    needs_without_cls: ClassVar[frozenset[str] | None] = frozenset(
        {"received_attention", "encoder_keys"}
    )
    space: ClassVar[Literal["tokens", "features"]] = "features"
    presets: ClassVar[dict[str, dict[str, Any]]] = {"released": {"contextual": 30}}

    contextual: int = -1
    contextual_share: float = 10 / 64
    contextual_mean: Literal["code", "average"] = "code"

    def __post_init__(self) -> None:
        """Check the settings."""
        check_count("contextual", self.contextual, least=-1)
        share = self.contextual_share
        if not isinstance(share, int | float) or isinstance(share, bool) or not 0 <= share < 1:
            raise ValueError(f"contextual_share must be in [0, 1), got {share!r}")
        check_choice("contextual_mean", self.contextual_mean, ("code", "average"))

    def split(self, k: int) -> tuple[int, int]:
        """Return how many of a tile's ``k`` tokens are dominant, CLS included, and contextual."""
        count = round(k * self.contextual_share) if self.contextual < 0 else self.contextual
        count = min(count, k - 1)
        return k - count, count

    def _merge_image(self, tokens: VisualTokens, k: int, signals: Signals) -> Mixture:
        attention, keys, columns = _read(signals, len(tokens))
        groups = tile_groups(signals, len(tokens))
        sizes = [len(group) for group in groups]
        cls: list[_Part] = []
        dominant: list[_Part] = []
        contextual: list[_Part] = []
        for group, share in zip(groups, share_out(min(k, sum(sizes)), sizes), strict=True):
            if share == 0:
                continue
            tile = 0 if signals.tiles is None else int(signals.tiles[group[0]])
            group = group.to(tokens.device)
            with_cls = columns > len(tokens)
            top, targets, rows = self._tile(attention[group], keys[group], share, with_cls)
            own = as_weights([len(tokens) + tile] if with_cls else [], columns).to(tokens.device)
            spread = rows.new_zeros(len(rows), columns).index_copy_(1, group, rows)
            cls.append((group.new_full((len(own),), -1), own))
            dominant.append((group[top], as_weights(group[top], columns)))
            contextual.append((group[targets], spread))
        first = [cls[0], dominant[0], contextual[0]]
        if len(cls) == 1:
            return Mixture(*_joined(first))
        places, weights = _joined(dominant[1:])
        order = places.argsort()
        raster = places[order], weights[order]
        return Mixture(*_joined([*first, raster, *cls[1:], *contextual[1:]]))

    def _tile(
        self, attention: Float[Tensor, " n"], keys: Float[Tensor, "n c"], k: int, with_cls: bool
    ) -> tuple[Int64[Tensor, " d"], Int64[Tensor, " c"], Float[Tensor, "c n"]]:
        """Return dominant patches, ascending, targets, and weights of the contextual tokens."""
        dominant_count, count = self.split(k)
        dominant_count -= with_cls
        order = attention.argsort(descending=True, stable=True)
        dominant = order[:dominant_count].sort().values
        rest = order[dominant_count:].sort().values
        step = max(1, len(rest) // max(1, count))
        is_target = torch.zeros(len(rest), dtype=torch.bool, device=rest.device)
        is_target[: step * count : step] = True
        targets, others = rest[is_target], rest[~is_target]
        weights = keys.new_zeros(count, len(keys))
        if count == 0:
            return dominant, targets, weights
        units = unit_rows(keys)
        nearest = (units[others] @ units[targets].T).argmax(1)
        weights[nearest, others] = 1.0
        if self.contextual_mean == "code":
            weights /= weights.sum(1, keepdim=True).clamp(min=1)
        weights[torch.arange(count), targets] = 1.0
        if self.contextual_mean == "average":
            weights /= weights.sum(1, keepdim=True)
        return dominant, targets, weights


def _joined(parts: Sequence[_Part]) -> _Part:
    return torch.cat([places for places, _ in parts]), torch.cat([rows for _, rows in parts])


def _read(signals: Signals, n: int) -> tuple[Tensor, Tensor, int]:
    """Return attention and keys over all heads, and the number of columns of the weights.

    There are more columns than tokens where there are CLS tokens.
    """
    attention = signals.cls_attention
    with_cls = attention is not None
    if attention is None:
        attention = signals.given("received_attention")
    keys = signals.given("encoder_keys").float().unflatten(1, (len(attention), -1)).mean(1)
    if not with_cls:
        return attention.float().sum(0), keys, n
    cls = signals.given("cls_features")
    tiles = 1 if signals.tiles is None else int(signals.tiles.max()) + 1
    if len(cls) < tiles:
        raise ValueError(f"signals.cls_features must have a row for {tiles} tiles, got {len(cls)}")
    return attention.float().sum(0), keys, n + len(cls)
