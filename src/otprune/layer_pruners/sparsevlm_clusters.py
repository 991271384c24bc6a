"""Density-peak clustering with nearest neighbours (DPC-kNN), as SparseVLM merges tokens."""

from typing import Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor

Ties = Literal["both", "first"]


def cluster_means(
    points: Float[Tensor, "q d"], count: int, ties: Ties = "both"
) -> Float[Tensor, "c d"]:
    """Return the plain means of ``count`` clusters, in the order of their centres' scores.

    Float32 inside, the points' dtype out.
    """
    values = points.float()
    labels = cluster_labels(values, count, ties)
    sums = values.new_zeros(count, values.shape[1]).index_add_(0, labels, values)
    sizes = torch.bincount(labels, minlength=count).unsqueeze(1)
    return (sums / sizes).to(points.dtype)


def cluster_labels(
    points: Float[Tensor, "q d"], count: int, ties: Ties = "both"
) -> Int64[Tensor, " q"]:
    """Return the cluster, 0 to ``count`` - 1, of each of q >= ``count`` >= 1 points.

    Distances are Euclidean over the square root of d. A point's density is exp(-mean squared
    distance to its ``count`` nearest points, itself among them); its score is the density times the
    distance to the nearest denser point (the largest distance of all if there is none). The
    ``count`` highest scores are centres, every other point belongs to the nearest centre.

    Ties are no rarity: with two clusters the two points closest to each other are equally dense.
    Under "both" neither is denser and both are centres; under "first" the one of lower index counts
    as denser. Of equal scores the higher index comes first, as happens in the released code on a
    CPU; of equal distances to centres the first centre.
    """
    # Without the matrix product, whose rounding would tell exact duplicates apart.
    mode = "donot_use_mm_for_euclid_dist"
    distances = torch.cdist(points, points, compute_mode=mode) / points.shape[1] ** 0.5
    nearest = distances.topk(count, dim=1, largest=False).values
    density = (-nearest.square().mean(1)).exp()
    denser = density > density.unsqueeze(1)
    if ties == "first":
        denser |= (density == density.unsqueeze(1)).tril(-1)
    to_denser = distances.masked_fill(~denser, float("inf")).amin(1).clamp(max=distances.max())
    score = density * to_denser
    centres = len(points) - 1 - score.flip(0).argsort(descending=True, stable=True)[:count]
    labels = distances[:, centres].argmin(1)
    labels[centres] = torch.arange(count, device=points.device)
    return labels
