"""The order of the work, where several processes answer the same questions."""

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator

from otprune_lmms.engine.survey import Question

Batch = list[Question]


class Work:
    """Batches still to be done, each given out once.

    Processes that share a journal and begin together would stay together, each answering what the
    other is about to. So who sees another one answer what it has begun itself, since it came there,
    leaves the batch at hand for later and goes on elsewhere among the rest; the process with
    ``share`` 0 stays. A batch is put off once at most.

    Args:
        batches: what is to be done.
        wanted: whether any of a batch is; asked when its turn comes.
        share: how far to go, in [0, 1), as a share of the rest.
    """

    def __init__(
        self, batches: Iterable[Batch], wanted: Callable[[Batch], bool], share: float
    ) -> None:
        self._rest = deque(batches)
        self._wanted, self._share = wanted, share
        self._moves = 0
        self._given: dict[str, int] = {}
        self._put_off: set[str] = set()
        self._begun: set[str] = set()

    def __bool__(self) -> bool:
        """Whether anything is left to be given out."""
        return any(map(self._wanted, self._rest))

    def __iter__(self) -> Iterator[Batch]:
        """Return itself."""
        return self

    def __next__(self) -> Batch:
        """Return the next batch that is wanted."""
        while self._rest:
            batch = self._rest.popleft()
            if self._wanted(batch):
                self._given[_name(batch)] = self._moves
                return batch
        raise StopIteration

    def begin(self, batch: Batch) -> bool:
        """Return whether it is a batch's turn; not if it was given out before a move."""
        if self._given[_name(batch)] != self._moves and self._later(batch):
            return False
        self._begun.update(question.digest for question in batch)
        return True

    def met(self, batch: Batch, answered: Collection[str]) -> bool:
        """Return whether to leave a batch that has begun.

        Args:
            batch: at hand.
            answered: hashes of questions that other processes have answered since the last time.
        """
        if self._share == 0 or self._begun.isdisjoint(answered):
            return False
        self._moves += 1
        self._begun.clear()
        self._rest = deque(filter(self._wanted, self._rest))
        self._rest.rotate(-int(self._share * len(self._rest)))
        return self._later(batch)

    def _later(self, batch: Batch) -> bool:
        """Put a batch last; return whether it could be."""
        name = _name(batch)
        if name in self._put_off:
            return False
        self._put_off.add(name)
        self._rest.append(batch)
        return True


def share_of(writer: int) -> float:
    """Return how far the writer of a journal with this number goes: 0, 1/2, 1/4, 3/4, 1/8, ...

    The binary digits behind the point are those of the number, turned round (van der Corput).
    """
    share, step = 0.0, 0.5
    while writer:
        share += step * (writer & 1)
        writer, step = writer >> 1, step / 2
    return share


def _name(batch: Batch) -> str:
    return batch[0].digest
