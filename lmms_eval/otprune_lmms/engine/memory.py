"""Work that does not fit into memory is repeated in halves."""

import gc
import logging
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")

logger = logging.getLogger(__name__)


class TooLargeError(RuntimeError):
    """One item alone does not fit into memory.

    Attributes:
        item: what does not fit.
    """

    def __init__(self, item: object, reason: str) -> None:
        super().__init__(reason)
        self.item = item


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that memory ran out, on a GPU or a CPU."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    signs = ("out of memory", "can't allocate memory", "cannot allocate memory")
    return isinstance(error, RuntimeError) and any(s in str(error).lower() for s in signs)


class Halving:
    """Runs work in pieces that fit into memory, and remembers the size that fits.

    Attributes:
        halvings: how often a piece was halved.
    """

    def __init__(self) -> None:
        self.halvings = 0
        self._fits: dict[Hashable, int] = {}

    def run(
        self,
        kind: Hashable,
        items: Sequence[Item],
        work: Callable[[Sequence[Item]], list[Result]],
        most: int | None = None,
    ) -> Iterator[tuple[Sequence[Item], list[Result]]]:
        """Yield (items, results) piece by piece, all items in order.

        Args:
            kind: name of work whose pieces need the same memory: a size that did not fit is not
                tried again for it.
            items: what ``work`` is called with.
            work: returns one result for each item.
            most: size of the first piece; None for all items.

        Raises:
            TooLargeError: one item alone does not fit.
        """
        start = 0
        while start < len(items):
            size = min(self._fits.get(kind, most or len(items)), len(items) - start)
            piece = items[start : start + size]
            results, reason = _attempt(work, piece)
            if results is not None:
                yield piece, results
                start += size
                continue
            # The tensors of the failed call are free only outside of its exception handler.
            _free()
            if size == 1:
                raise TooLargeError(piece[0], reason)
            self._fits[kind] = size // 2
            self.halvings += 1
            logger.warning("out of memory with %s of %s: going on with %s", size, kind, size // 2)


def _attempt(
    work: Callable[[Sequence[Item]], list[Result]], piece: Sequence[Item]
) -> tuple[list[Result] | None, str]:
    try:
        return work(piece), ""
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return None, str(error).partition("\n")[0] or type(error).__name__


def _free() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
