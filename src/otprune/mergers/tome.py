"""ToMe-style merging: pairs of tokens with similar keys become one (arXiv 2210.09461)."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from otprune.checks import check_choice
from otprune.kernels import unit_rows
from otprune.merger import Merger, Mixture
from otprune.signals import Signals
from otprune.tiles import share_out, tile_groups
from otprune.types import VisualTokens


@dataclass(frozen=True, slots=True)
class ToMe(Merger):
    """Bipartite soft matching on the vision encoder's keys, repeated until there are k tokens.

    Source: arXiv 2210.09461 (ICLR 2023), sec. 3. Tokens are split alternately into a and b; every
    a is linked to the b with the most similar key (cosine); the strongest links are merged, at
    most half of the tokens in a round; a merged token is the mean of all old tokens in it.

    This is not the paper's model, which merges some tokens in every block of the vision encoder, so
    that later blocks see merged tokens, with keys of their own and attention weighted by size. Here
    the encoder is unchanged, and the output of its selected block is merged before the projector,
    in as few rounds as possible; the key of a merged token is the mean of its members' keys. So
    nothing is saved in the vision encoder, and scores are not comparable to the paper's.

    A merged token takes the place of its member from b, and raster order is kept. Tiles are merged
    separately, with k divided evenly; newline tokens are left out, so an image never has more new
    tokens than patches. O(n²c) for the first round, a quarter of that for each further one.

    Attributes:
        heads: "mean": keys are averaged over heads, as in the paper; "all": heads are concatenated.
    """

    space: ClassVar[Literal["tokens", "features"]] = "features"

    heads: Literal["mean", "all"] = "mean"

    def __post_init__(self) -> None:
        """Check the settings."""
        check_choice("heads", self.heads, ("mean", "all"))

    @property
    # A property where the class attribute of `Method` is a constant: it depends on a setting.
    def needs(self) -> frozenset[str]:  # type: ignore[override]
        """Signals; CLS attention is used only for its number of heads."""
        heads = {"cls_attention"} if self.heads == "mean" else set()
        return frozenset({"encoder_keys", "features"} | heads)

    @property
    # As above.
    def needs_without_cls(self) -> frozenset[str]:  # type: ignore[override]
        """Signals; attention is used only for its number of heads."""
        heads = {"received_attention"} if self.heads == "mean" else set()
        return frozenset({"encoder_keys", "features"} | heads)

    def _merge_image(self, tokens: VisualTokens, k: int, signals: Signals) -> Mixture:
        keys = signals.given("encoder_keys").float()
        if self.heads == "mean":
            attention = signals.cls_attention
            count = len(signals.given("received_attention") if attention is None else attention)
            keys = keys.unflatten(1, (count, -1)).mean(1)
        n = len(tokens)
        groups = [group.to(tokens.device) for group in tile_groups(signals, n)]
        sizes = [len(group) for group in groups]
        places = torch.empty(0, dtype=torch.long, device=tokens.device)
        member_of = torch.full((n,), -1, device=tokens.device)
        for group, share in zip(groups, share_out(min(k, sum(sizes)), sizes), strict=True):
            if share:
                kept, members = match(keys[group], share)
                member_of[group] = members + len(places)
                places = torch.cat([places, group[kept]])
        numbers = torch.arange(len(places), device=tokens.device)
        weights = (member_of == numbers[:, None]).float()
        weights /= weights.sum(1, keepdim=True)
        order = places.argsort()
        return Mixture(places[order], weights[order])


def match(keys: Float[Tensor, "n c"], k: int) -> tuple[Int64[Tensor, " k"], Int64[Tensor, " n"]]:
    """Merge n tokens until ``k`` are left.

    Returns:
        places: number of the old token whose place each new one takes, ascending.
        members: number of the new token that each old one is part of.
    """
    n = len(keys)
    places = torch.arange(n, device=keys.device)
    members = places.clone()
    total = keys.clone()
    size = keys.new_ones(n)
    while len(places) > k:
        m = len(places)
        target = _links(total / size[:, None], min(m - k, m // 2))
        stays = target == torch.arange(m, device=keys.device)
        number = (stays.cumsum(0) - 1)[target]
        members = number[members]
        places = places[stays]
        total = total.new_zeros(len(places), keys.shape[1]).index_add_(0, number, total)
        size = size.new_zeros(len(places)).index_add_(0, number, size)
    return places, members


def _links(keys: Float[Tensor, "m c"], r: int) -> Int64[Tensor, " m"]:
    """Return for each token the one that it is merged into; itself if it is not merged."""
    units = unit_rows(keys)
    strength, nearest = (units[::2] @ units[1::2].T).max(1)
    strongest = strength.argsort(descending=True, stable=True)[:r]
    target = torch.arange(len(keys), device=keys.device)
    target[2 * strongest] = 2 * nearest[strongest] + 1
    return target
