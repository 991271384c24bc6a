"""Counts of several processes become one."""

from collections.abc import Mapping, Sequence
from typing import Any


def total(counts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return counts (`otprune_lmms.engine.Counts`) added up; times of the slowest."""
    numbers = [name for name in counts[0] if name != "seconds"]
    found: dict[str, Any] = {name: sum(one[name] for one in counts) for name in numbers}
    phases = dict.fromkeys(phase for one in counts for phase in one["seconds"])
    found["seconds"] = {
        phase: round(max(one["seconds"].get(phase, 0.0) for one in counts), 2) for phase in phases
    }
    return found
