"""Prefetching on threads: a bounded number of results is ready before they are needed."""

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

    An error is raised when its item's turn comes. When the iterator is closed, calls that have not
    begun are dropped.

    Args:
        function: called on worker threads.
        items: its arguments, iterated over on the calling thread.
        workers: number of threads; 0 calls ``function`` on the calling thread, nothing ahead.
        depth: results that may wait at one time.
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
