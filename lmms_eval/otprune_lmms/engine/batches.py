"""Which requests form a batch, and in which order processes answer the batches."""

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

from otprune_lmms.engine.prepare import PreparedRequest

Batch = list[PreparedRequest]


def batches(requests: Sequence[PreparedRequest], size: int) -> Iterator[Batch]:
    """Yield requests in batches of up to ``size``.

    A batch has one task, split, kind, image view and one set of generation settings. Requests about
    the same images follow each other, so that an image's visual tokens need not be held for long.
    Otherwise long prompts come first: then time estimates are rather too long than too short, a
    batch that does not fit into memory fails at once, and neighbours need little padding.
    """
    groups: dict[tuple, Batch] = {}
    for one in requests:
        request = one.request
        group = (request.task, request.split, request.kind, one.generation, one.prompt.image_view)
        groups.setdefault(group, []).append(one)
    for group in groups.values():
        ordered = _ordered(group)
        for start in range(0, len(ordered), size):
            yield ordered[start : start + size]


def _ordered(requests: Sequence[PreparedRequest]) -> Batch:
    longest: dict[tuple[str, ...], int] = {}
    for one in requests:
        longest[one.images] = max(_length(one), longest.get(one.images, 0))
    return sorted(
        requests,
        key=lambda r: (-len(r.images), -longest[r.images], r.images, -_length(r), r.digest),
    )


def _length(one: PreparedRequest) -> int:
    return len(one.prompt.text) + len(one.request.continuation or "")


class BatchQueue:
    """Batches still to be answered, where several processes may answer the same requests.

    Processes that share a journal and begin at the same batch would answer the same requests at the
    same time. So a process that sees another one answer requests of its own current batch puts the
    batch last and continues further on in the queue; the process with ``jump`` 0 stays. A batch is
    put last once at most.

    Args:
        batches: to be answered; each is returned once.
        wanted: returns whether a request of a batch lacks an answer; called when its turn comes.
        jump: how far to move on, in [0, 1), as a share of the rest.
    """

    def __init__(
        self, batches: Iterable[Batch], wanted: Callable[[Batch], bool], jump: float
    ) -> None:
        self._rest = deque(batches)
        self._wanted, self._jump = wanted, jump
        self._jumps = 0
        self._given_at: dict[str, int] = {}
        self._put_off: set[str] = set()
        self._begun: set[str] = set()

    def __bool__(self) -> bool:
        """Whether a batch is left that lacks an answer."""
        return any(map(self._wanted, self._rest))

    def __iter__(self) -> Iterator[Batch]:
        """Return itself."""
        return self

    def __next__(self) -> Batch:
        """Return the next batch that lacks an answer."""
        while self._rest:
            batch = self._rest.popleft()
            if self._wanted(batch):
                self._given_at[_name(batch)] = self._jumps
                return batch
        raise StopIteration

    def begin(self, batch: Batch) -> bool:
        """Return whether to answer a batch now; one returned before a jump is put last instead."""
        if self._given_at[_name(batch)] != self._jumps and self._put_last(batch):
            return False
        self._begun.update(one.digest for one in batch)
        return True

    def leave(self, batch: Batch, answered: Collection[str]) -> bool:
        """Return whether to leave a begun batch, because another process answers it.

        Args:
            batch: the current one.
            answered: digests that other processes have answered since the last call.
        """
        if self._jump == 0 or self._begun.isdisjoint(answered):
            return False
        self._jumps += 1
        self._begun.clear()
        self._rest = deque(filter(self._wanted, self._rest))
        self._rest.rotate(-int(self._jump * len(self._rest)))
        return self._put_last(batch)

    def _put_last(self, batch: Batch) -> bool:
        """Put a batch last; return False if it was put last before."""
        name = _name(batch)
        if name in self._put_off:
            return False
        self._put_off.add(name)
        self._rest.append(batch)
        return True


def jump_of(writer: int) -> float:
    """Return `BatchQueue`'s ``jump`` for a journal's writer: 0, 1/2, 1/4, 3/4, 1/8, ...

    The van der Corput sequence: the writer's binary digits, reversed, behind the point.
    """
    jump, step = 0.0, 0.5
    while writer:
        jump += step * (writer & 1)
        writer, step = writer >> 1, step / 2
    return jump


def _name(batch: Batch) -> str:
    return batch[0].digest
