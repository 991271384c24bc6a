"""A shard, one part of a sweep: every N-th document, or every N-th pruning config."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar, get_args

Item = TypeVar("Item")
By = Literal["documents", "configs"]


@dataclass(frozen=True, slots=True)
class Shard:
    """Part ``index`` of ``count``, counted from 1: 1/3, 2/3, 3/3.

    Attributes:
        index: which part, 1 to ``count``.
        count: how many parts there are.
        by: "documents": each part has every count-th document, under all configs; "configs": each
            part has every count-th pair of model and config, with all documents.

    Raises:
        ValueError: no such part, or another value of ``by``.
    """

    index: int
    count: int
    by: By = "documents"

    def __post_init__(self) -> None:
        """Check the numbers."""
        for name, value in (("index", self.index), ("count", self.count)):
            if isinstance(value, bool) or not isinstance(value, int):
                raise ValueError(f"{name} of a shard must be an integer, got {value!r}")
        if self.count < 1 or not 1 <= self.index <= self.count:
            raise ValueError(
                f"shard must be i/N with 1 <= i <= N, as 1/3, 2/3, 3/3; "
                f"got {self.index}/{self.count}"
            )
        if self.by not in get_args(By):
            raise ValueError(f"shards must be by documents or configs, got {self.by!r}")

    @classmethod
    def parse(cls, text: str, by: By = "documents") -> "Shard":
        """Return the shard that ``i/N`` names.

        Raises:
            ValueError: another form, or see the class.
        """
        found = re.fullmatch(r"(\d+)/(\d+)", text.strip(), flags=re.ASCII)
        if found is None:
            raise ValueError(f"shard must be i/N with 1 <= i <= N, as 1/3, got {text!r}")
        return cls(int(found[1]), int(found[2]), by)

    def __str__(self) -> str:
        """Return ``i/N``."""
        return f"{self.index}/{self.count}"

    def place(self, rank: int, world: int) -> tuple[int, int]:
        """Return the documents of process ``rank`` of ``world`` processes in this shard.

        The pair (r, w) means the documents r, r + w, r + 2w, ... A shard by documents has every
        count-th document for any number of processes, so shards may have different numbers of
        processes. A shard by configs has all documents.
        """
        if self.by == "configs":
            return rank, world
        return self.index - 1 + self.count * rank, self.count * world

    def configs(self, configs: Sequence[Item]) -> list[Item]:
        """Return this shard's configs: all of them unless shards are by configs."""
        if self.by == "documents":
            return list(configs)
        return list(configs[self.index - 1 :: self.count])
