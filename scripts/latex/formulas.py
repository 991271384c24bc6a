"""Formulas of a seeded generator, and their drawings: dark ink on white paper."""

import random
from collections.abc import Callable

import numpy as np
from matplotlib import rc_context
from matplotlib.font_manager import FontProperties
from matplotlib.mathtext import MathTextParser
from PIL import Image

LETTERS = "abcdfghkmnpqrstuvwxyzABCDFGHKLMNPRSTVX"
GREEK = ("alpha", "beta", "gamma", "delta", "lambda", "mu", "theta", "phi", "omega", "Gamma")
RELATIONS = ("=", r"\leq ", r"\geq ", r"\in ", r"\rightarrow ")
FUNCTIONS = ("sin", "cos", "log", "exp", "max", "det")

_DPI, _SIZE, _MARGIN = 200, 14, 8
"""Dots per inch, points of the letters, and white pixels around the ink."""


def make_formula(rng: random.Random) -> str:
    """Return one formula in the LaTeX that matplotlib draws: two or three terms and a relation.

    Terms are powers, indices, fractions, roots, sums, products, integrals, limits, functions,
    Greek letters, hats, brackets, binomials and columns of a matrix.
    """
    left = _sum_of_terms(rng, 1)
    right = _sum_of_terms(rng, rng.randint(1, 2))
    return left + rng.choice(RELATIONS) + right


def make_formulas(count: int, seed: int) -> list[str]:
    """Return so many formulas, no two alike; a larger count only adds to a smaller one's.

    Raises:
        ValueError: count below 1.
    """
    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}")
    rng = random.Random(seed)
    found: dict[str, None] = {}
    while len(found) < count:
        found[make_formula(rng)] = None
    return list(found)


def draw(formula: str) -> Image.Image:
    """Return a formula in Computer Modern, greyscale; black (0) ink on white (255) paper.

    Raises:
        ValueError: the formula is not what matplotlib's parser reads.
    """
    with rc_context({"mathtext.fontset": "cm"}):
        parser: MathTextParser = MathTextParser("agg")
        drawn = parser.parse(f"${formula}$", dpi=_DPI, prop=FontProperties(size=_SIZE))
    ink = np.asarray(drawn.image)
    return Image.fromarray(255 - np.pad(ink, _MARGIN))


def _sum_of_terms(rng: random.Random, count: int) -> str:
    terms = [rng.choice(_TERMS)(rng) for _ in range(count)]
    return rng.choice("+-").join(terms)


def _letter(rng: random.Random) -> str:
    return rng.choice(LETTERS)


def _atom(rng: random.Random) -> str:
    """Return a letter, a Greek letter, or a letter with a number before it."""
    kind = rng.randrange(4)
    if kind == 0:
        return f"\\{rng.choice(GREEK)} "
    if kind == 1:
        return f"{rng.randint(2, 9)}{_letter(rng)}"
    return _letter(rng)


def _power(rng: random.Random) -> str:
    return f"{_letter(rng)}^{{{rng.choice([str(rng.randint(2, 9)), _atom(rng)])}}}"


def _index(rng: random.Random) -> str:
    return f"{_letter(rng)}_{{{rng.choice([str(rng.randint(1, 9)), _letter(rng)])}}}"


def _both(rng: random.Random) -> str:
    return f"{_letter(rng)}_{{{_letter(rng)}}}^{{{rng.randint(2, 9)}}}"


def _fraction(rng: random.Random) -> str:
    above, below = _simple(rng), rng.choice([_atom(rng), f"{_atom(rng)}+{rng.randint(1, 9)}"])
    return f"\\frac{{{above}}}{{{below}}}"


def _root(rng: random.Random) -> str:
    return f"\\sqrt{{{_simple(rng)}}}"


def _series(rng: random.Random) -> str:
    sign, index = rng.choice(["sum", "prod"]), rng.choice("ijkn")
    low, high = rng.randint(0, 3), rng.choice("nNmM")
    return f"\\{sign}_{{{index}={low}}}^{{{high}}}{_letter(rng)}_{{{index}}}"


def _integral(rng: random.Random) -> str:
    variable = rng.choice("xyt")
    top = rng.choice([r"\infty", "1", _letter(rng)])
    return f"\\int_{{{rng.randint(0, 2)}}}^{{{top}}}{_letter(rng)}({variable})d{variable}"


def _limit(rng: random.Random) -> str:
    variable = rng.choice("nxt")
    return f"\\lim_{{{variable}\\rightarrow \\infty}}{_letter(rng)}_{{{variable}}}"


def _function(rng: random.Random) -> str:
    return f"\\{rng.choice(FUNCTIONS)}({_atom(rng)})"


def _hat(rng: random.Random) -> str:
    return f"\\{rng.choice(['hat', 'bar', 'tilde'])}{{{_letter(rng)}}}"


def _bracket(rng: random.Random) -> str:
    return f"({_atom(rng)}{rng.choice('+-')}{_simple(rng)})"


def _binomial(rng: random.Random) -> str:
    return f"\\binom{{{_letter(rng)}}}{{{_letter(rng)}}}"


def _matrix(rng: random.Random) -> str:
    columns = "\\ ".join(
        f"\\substack{{{_letter(rng)}\\\\{_letter(rng)}}}" for _ in range(rng.randint(1, 3))
    )
    return f"\\left[{columns}\\right]"


def _simple(rng: random.Random) -> str:
    return rng.choice([_atom, _power, _index])(rng)


_TERMS: tuple[Callable[[random.Random], str], ...] = (
    _atom,
    _power,
    _index,
    _both,
    _fraction,
    _root,
    _series,
    _integral,
    _limit,
    _function,
    _hat,
    _bracket,
    _binomial,
    _matrix,
)
