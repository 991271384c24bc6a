"""Work done ahead of its use, on threads, a bounded number of items at a time."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def ahead(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int, depth: int
) -> Generator[Result]:
    """Yield ``function`` of each item, in order, with up to ``depth`` results waiting.

    With ``workers=0`` nothing is done ahead. An error comes out where its item's turn is; when the
    iterator is closed, what has not begun is dropped.
    """
    if workers == 0:
        yield from map(function, items)
        return
    waiting: deque[Future[Result]] = deque()
    rest = iter(items)
    pool = ThreadPoolExecutor(workers, thread_name_prefix="otprune-ahead")
    try:
        for item in islice(rest, depth):
            waiting.append(pool.submit(function, item))
        while waiting:
            result = waiting.popleft().result()
            for item in islice(rest, 1):
                waiting.append(pool.submit(function, item))
            yield result
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
