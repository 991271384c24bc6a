"""Comparing two readings of a formula, and statistics over formulas."""

import re
from collections.abc import Sequence

import numpy as np
from otprune_lmms.reporting.statistics.bootstrap import cluster_counts, interval

PERMUTATIONS = 9999

_SAME = {
    r"\to": r"\rightarrow",
    r"\le": r"\leq",
    r"\ge": r"\geq",
    r"\tfrac": r"\frac",
    r"\dfrac": r"\frac",
    r"\tbinom": r"\binom",
    r"\dbinom": r"\binom",
}
"""Commands that draw the same, but for its size."""

_LOOKS = (
    r"[bB]ig[lr]?|left|right|(text|display|script)style|(no)?limits|boldsymbol|boldmath|pmb|bm|bf|rm|it"
    r"|math(bf|rm|it|op|bin|rel|open|close)|text(bf|rm)?|[hm]box|q?quad"
)
"""Commands that change size, weight or spacing alone."""

_FRAMES = "equation|align|gather|multline|displaymath|eqnarray|split"


def content(text: str) -> str:
    r"""Return what a text draws: without frames, spaces, braces, and commands for looks alone.

    The model has read formulas by many authors, and chooses among ``\[``, ``equation`` and
    ``align``, ``(`` and ``\bigl(`` as they did; such choices are not content.
    """
    text = re.sub(rf"\\(begin|end)\{{({_FRAMES})\*?\}}", "", text)
    text = re.sub(r"\\[hv]space\*?\{[^}]*\}", "", text)
    for name, other in _SAME.items():
        # A function, since backslashes of a replacement would be read as escapes.
        text = re.sub(re.escape(name) + r"(?![A-Za-z])", lambda _, other=other: other, text)
    text = re.sub(rf"\\({_LOOKS})(?![A-Za-z])", "", text)
    text = re.sub(r"\\[,!;: \[\]]", "", text)
    return re.sub(r"[\s{}~$]", "", text)


def edit_distance(a: str, b: str) -> float:
    """Return the characters to insert, delete or replace, as a share of the longer text's; 0..1."""
    if not a and not b:
        return 0.0
    row = list(range(len(b) + 1))
    for i, x in enumerate(a):
        diagonal, row[0] = row[0], i + 1
        for j, y in enumerate(b):
            change = diagonal + (x != y)
            diagonal = row[j + 1]
            row[j + 1] = min(row[j + 1] + 1, row[j] + 1, change)
    return row[-1] / max(len(a), len(b))


def mean_interval(values: np.ndarray, draws: int = 2000) -> tuple[float, float]:
    """Return the 95 % percentile interval of the mean of ``values`` [n], formulas redrawn."""
    stratum = np.zeros(len(values), dtype=int)
    counts = np.concatenate(list(cluster_counts(stratum, draws, 0)))
    return interval(counts @ values / len(values))


def sign_flip_p(differences: np.ndarray) -> float:
    """Return the two-sided p of "the mean difference is 0": signs of formulas are drawn at random.

    (1 + draws at least as extreme) / (1 + `PERMUTATIONS`), with a fixed seed.

    Args:
        differences: [n], one a formula, between two settings.
    """
    some = differences[differences != 0]
    if not len(some):
        return 1.0
    signs = np.random.default_rng(0).choice([-1.0, 1.0], size=(PERMUTATIONS, len(some)))
    found = np.abs(signs @ some)
    extreme = int((found >= abs(some.sum()) - 1e-9).sum())
    return (1 + extreme) / (1 + PERMUTATIONS)


def with_interval(values: Sequence[float] | np.ndarray, digits: int, factor: float = 1.0) -> str:
    """Return the mean and its interval as text, both times ``factor``."""
    array = np.asarray(values, dtype=float) * factor
    low, high = mean_interval(array)
    return f"{array.mean():.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"
