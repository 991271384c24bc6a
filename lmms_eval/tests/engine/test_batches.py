"""Several processes on the same questions: each batch is done, few are done twice."""

import random
from types import SimpleNamespace

import pytest

from otprune_lmms.engine.batches import BatchQueue, jump_of


def batch(number: int):
    return [SimpleNamespace(digest=f"{number}.{row}") for row in range(2)]


def digests(one) -> set[str]:
    return {request.digest for request in one}


class Worker:
    """A process that answers batches, one config at a time, and sees what others have written."""

    def __init__(self, number: int, batches: int, configs: int, written: list) -> None:
        self.number, self.configs, self.written, self.seen = number, configs, written, 0
        self.known: set = set()
        self.queue = BatchQueue(map(batch, range(batches)), self._wanted, jump_of(number))
        self.steps = self._run()
        self.did = 0

    def _wanted(self, one) -> bool:
        return any((one[0].digest, config) not in self.known for config in range(self.configs))

    def _leaves(self, one) -> bool:
        new = [key for number, key in self.written[self.seen :] if number != self.number]
        self.seen = len(self.written)
        self.known.update(new)
        return self.queue.leave(one, {digest for digest, _ in new})

    def _run(self):
        while self.queue:
            for one in self.queue:
                if not self.queue.begin(one):
                    continue
                for config in range(self.configs):
                    if self._leaves(one):
                        break
                    key = (one[0].digest, config)
                    if key not in self.known:
                        yield  # others go on while this one works
                        self.written.append((self.number, key))
                        self.known.add(key)
                        self.did += 1


def together(
    processes: int, batches: int, configs: int, draw: random.Random | None
) -> list[Worker]:
    """Let workers go on by turns, or as they are drawn, until all have ended."""
    written: list = []
    workers = [Worker(number, batches, configs, written) for number in range(processes)]
    running = list(workers)
    while running:
        turn = [draw.choice(running)] if draw else list(running)
        for one in turn:
            try:
                next(one.steps)
            except StopIteration:
                running.remove(one)
    assert {key for _, key in written} == {
        (f"{number}.0", config) for number in range(batches) for config in range(configs)
    }
    return workers


@pytest.mark.parametrize("configs", [1, 4])
@pytest.mark.parametrize("processes", [2, 3, 4])
def test_processes_that_begin_together_part(processes, configs):
    workers = together(processes, 60, configs, None)
    done = sum(one.did for one in workers)
    assert done <= 60 * configs * 1.2, "without parting it would be as often as there are processes"
    assert min(one.did for one in workers) > 60 * configs / processes / 2, "all of them work"


@pytest.mark.parametrize("seed", range(20))
def test_whatever_their_speeds_everything_is_answered(seed):
    draw = random.Random(seed)
    processes, batches, configs = draw.randint(2, 5), draw.randint(1, 40), draw.randint(1, 5)
    workers = together(processes, batches, configs, draw)
    assert sum(one.did for one in workers) <= batches * configs + 4 * processes * configs


def test_alone_the_order_is_the_batches_own():
    (worker,) = together(1, 7, 2, None)
    assert [key for _, key in worker.written] == [(f"{n}.0", c) for n in range(7) for c in (0, 1)]


def test_the_first_writer_stays_where_it_is():
    queue = BatchQueue(map(batch, range(4)), lambda _: True, jump_of(0))
    first = next(queue)
    assert queue.begin(first)
    assert not queue.leave(first, digests(first))
    assert digests(next(queue)) == digests(batch(1))


def test_a_batch_that_was_read_ahead_before_a_jump_is_put_off_once():
    queue = BatchQueue(map(batch, range(6)), lambda _: True, jump_of(1))
    one, two = next(queue), next(queue)
    assert queue.begin(one)
    assert queue.leave(one, digests(one))
    assert not queue.begin(two)
    rest = list(queue)
    assert [each[0].digest for each in rest] == ["4.0", "5.0", "2.0", "3.0", "0.0", "1.0"]
    assert all(map(queue.begin, rest))
    assert not queue.leave(rest[4], digests(rest[4])), "a second time it is done"


def test_jumps_are_as_far_apart_as_can_be():
    assert [jump_of(n) for n in range(8)] == [0, 0.5, 0.25, 0.75, 0.125, 0.625, 0.375, 0.875]
