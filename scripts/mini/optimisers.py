"""Muon for matrices, AdamW for the rest.

torch's own Muon works in bfloat16, which takes most of a step on CPUs without such arithmetic; this
one works in float32, on all matrices of a shape at once.
"""

from collections import defaultdict

import torch
from torch import Tensor, nn

COEFFICIENTS = (3.4445, -4.7750, 2.0315)


def orthogonalised(matrices: Tensor, steps: int = 5) -> Tensor:
    """Return matrices [m r c] with singular values near 1 and the same singular vectors.

    The quintic Newton-Schulz iteration of Muon (K. Jordan et al. 2024).
    """
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    a, b, c = COEFFICIENTS
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised, with updates as large as AdamW's (RMS 0.2 times the rate)."""

    def __init__(
        self, matrices: list[nn.Parameter], momentum: float = 0.95, weight_decay: float = 0.01
    ) -> None:
        super().__init__(matrices, {"lr": 0.0, "momentum": momentum, "weight_decay": weight_decay})

    # Without the closure of other optimisers.
    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        """Update every matrix."""
        for group in self.param_groups:
            shapes: dict[torch.Size, list[nn.Parameter]] = defaultdict(list)
            for matrix in group["params"]:
                if matrix.grad is not None:
                    shapes[matrix.shape].append(matrix)
            for shape, same in shapes.items():
                moved = []
                for matrix in same:
                    held = self.state[matrix].setdefault("momentum", torch.zeros_like(matrix))
                    held.lerp_(matrix.grad, 1 - group["momentum"])
                    moved.append(matrix.grad.lerp(held, group["momentum"]))
                updates = orthogonalised(torch.stack(moved))
                scale = 0.2 * max(shape) ** 0.5 * group["lr"]
                for matrix, update in zip(same, updates, strict=True):
                    matrix.mul_(1 - group["lr"] * group["weight_decay"])
                    matrix.sub_(update, alpha=scale)


class Optimisers:
    """Both together."""

    def __init__(self, model: nn.Module) -> None:
        named = list(model.named_parameters())
        matrices = [p for name, p in named if p.ndim == 2 and "embed_tokens" not in name]
        others = [p for name, p in named if p.ndim != 2 or "embed_tokens" in name]
        self.parts: list[torch.optim.Optimizer] = [
            Muon(matrices),
            torch.optim.AdamW(others, betas=(0.9, 0.98), weight_decay=0.0),
        ]

    def step(self, rate: float, others: float) -> None:
        """Take a step and clear the gradients.

        Args:
            rate: learning rate of the matrices.
            others: that of everything else, relative to it.
        """
        for part, share in zip(self.parts, (1.0, others), strict=True):
            for group in part.param_groups:
                group["lr"] = rate * share
            part.step()
            part.zero_grad(set_to_none=True)
