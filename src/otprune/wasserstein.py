r"""How far kept tokens are from all tokens: transport distances and related measures.

Every function takes tokens of one image [n d] and the positions of the kept ones [k], computes in
float64, and returns a Python float. Distances are in the unit of the tokens; pass `unit_rows` of
them for a scale between 0 and 2 that compares across models. Both sets carry uniform masses, 1/n
and 1/k, unless stated otherwise.
"""

import math

import torch
from torch import Tensor

from otprune.checks import check_tokens


def gaussian_w2(tokens: Tensor, kept: Tensor, *, centred: bool = True) -> float:
    r"""Return the 2-Wasserstein distance of the Gaussians with the moments of all and kept tokens.

    W₂² = ‖μ - μ_C‖² + tr Σ + tr Σ_C - 2 tr (Σ^½ Σ_C Σ^½)^½   (Dowson & Landau 1982; Bures),
    with means μ and covariances Σ divided by n and k. With ``centred=False`` means are left out and
    Σ are raw second moments: the zero-mean distance of OTPrune's Eq. 3. The cross term is the sum
    of the singular values of X_C Xᵀ / √(nk), so no d x d root is taken; O(nk(d + k)).
    It is a lower bound of `exact_w2` if ``centred`` (Gelbrich 1990).

    Raises:
        ValueError: tokens not a finite matrix, kept empty, outside the tokens or repeated.
    """
    everything, some = _all_and_kept(tokens, kept)
    shift = 0.0
    if centred:
        shift = float((everything.mean(0) - some.mean(0)).square().sum())
        everything = everything - everything.mean(0)
        some = some - some.mean(0)
    traces = float(everything.square().sum() / len(everything) + some.square().sum() / len(some))
    cross = torch.linalg.svdvals(some @ everything.T).sum() / math.sqrt(len(everything) * len(some))
    return math.sqrt(max(0.0, shift + traces - 2 * float(cross)))


def exact_w2(tokens: Tensor, kept: Tensor) -> float:
    """Return the 2-Wasserstein distance between the tokens and the kept ones as point masses.

    The linear program min over couplings of Σ_ij P_ij ‖x_i - x_j‖², solved by POT's network simplex
    (extra ``otprune[transport]``), and its square root. About 20 ms at n = 576, k = 56; the time
    grows faster than n².

    Raises:
        ImportError: POT is not installed.
        ValueError: as `gaussian_w2`; or the solver did not converge.
    """
    try:
        import ot
    except ImportError as error:
        raise ImportError("exact_w2 needs POT: pip install 'otprune[transport]'") from error
    everything, some = _all_and_kept(tokens, kept)
    cost = _squared_distances(everything, some).cpu()
    all_masses, kept_masses = (cost.new_full((size,), 1 / size) for size in cost.shape)
    # The solver's tolerances are absolute, so its costs must be of order one.
    unit = float(cost.max()) or 1.0
    value, log = ot.emd2(all_masses, kept_masses, cost / unit, numItermax=10_000_000, log=True)
    if log["warning"] is not None:
        raise ValueError(f"exact_w2 did not converge: {log['warning']}")
    return math.sqrt(max(0.0, float(value)) * unit)


def coverage(tokens: Tensor, kept: Tensor) -> float:
    """Return the root mean squared distance from each token to its nearest kept token.

    The 2-Wasserstein distance if kept tokens may have any masses (the best are the shares of tokens
    nearest to each), hence at most `exact_w2`. O(nkd).

    Raises:
        ValueError: as `gaussian_w2`.
    """
    everything, some = _all_and_kept(tokens, kept)
    return math.sqrt(float(_squared_distances(everything, some).amin(1).mean()))


def effective_rank(tokens: Tensor) -> float:
    """Return exp(H(p)), p the singular values of the tokens divided by their sum.

    Roy & Vetterli 2007: between 1 and min(n, d), the number of directions that the tokens fill
    evenly. All-zero tokens have effective rank 0. O(nd min(n, d)).

    Raises:
        ValueError: tokens not a finite matrix.
    """
    check_tokens(tokens)
    singular = torch.linalg.svdvals(tokens.detach().double())
    if float(singular.sum()) == 0:
        return 0.0
    shares = singular / singular.sum()
    return float(torch.special.entr(shares).sum().exp())


def _all_and_kept(tokens: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
    check_tokens(tokens)
    if not isinstance(kept, Tensor):
        raise ValueError(f"kept must be a tensor of positions [k], got {type(kept).__name__}")
    if kept.ndim != 1 or kept.dtype != torch.int64 or len(kept) == 0:
        raise ValueError(
            f"kept must be int64 positions [k], k >= 1; got {kept.dtype} {tuple(kept.shape)}"
        )
    if int(kept.min()) < 0 or int(kept.max()) >= len(tokens):
        raise ValueError(
            f"kept must lie in 0..{len(tokens) - 1}, got {int(kept.min())}..{int(kept.max())}"
        )
    if len(kept.unique()) != len(kept):
        raise ValueError("kept must not repeat a position")
    everything = tokens.detach().double()
    return everything, everything[kept]


def _squared_distances(x: Tensor, y: Tensor) -> Tensor:
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist").square_()
