"""Loops of picks and products of tokens compiled from C, for tensors on a CPU; optional.

A greedy method picks token after token, and each pick is a few operations on small vectors: in
torch their overhead is most of the time. `Loops` has the same rules in C (``loops.c``), run by one
thread without Python's lock, so that a busy neighbour core does not slow them down. They need a C
compiler the first time: `build` compiles them in about a second and keeps the library in the user's
cache folder. Where that cannot be done, `loops_for` returns None, methods run in torch as on a GPU,
and why is logged. Both give the same picks but for near-ties within rounding.
"""

from otprune.compiled.loops import (
    GreedyState,
    Loops,
    MixtureState,
    RowsOfKernel,
    loops_for,
    without_loops,
)

__all__ = ["GreedyState", "Loops", "MixtureState", "RowsOfKernel", "loops_for", "without_loops"]
