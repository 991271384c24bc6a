"""Work ahead of its use: in order, bounded, and dropped when nobody wants it."""

import threading
import time

import pytest

from otprune_lmms.engine.ahead import ahead
from otprune_lmms.engine.progress import Progress


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_results_come_in_order_however_long_each_takes(workers):
    def work(item):
        time.sleep(0.002 * (item % 3))
        return 10 * item

    assert list(ahead(work, range(20), workers, 5)) == [10 * i for i in range(20)]


def test_never_more_wait_than_asked_for():
    begun, taken, most = [], [], []

    def work(item):
        begun.append(item)
        return item

    for item in ahead(work, range(30), 2, 4):
        taken.append(item)
        time.sleep(0.002)
        most.append(len(begun) - len(taken))
    assert max(most) <= 4
    assert len(begun) == 30


def test_an_error_comes_out_at_its_turn_and_no_thread_is_left():
    def work(item):
        if item == 3:
            raise ValueError("the third")
        return item

    found = []
    with pytest.raises(ValueError, match="the third"):
        found.extend(ahead(work, range(10), 2, 4))
    assert found == [0, 1, 2]
    assert not [t for t in threading.enumerate() if t.name.startswith("otprune-ahead")]


def test_closing_drops_what_has_not_begun():
    begun = []
    results = ahead(lambda item: begun.append(item) or time.sleep(0.01), range(1000), 2, 50)
    next(results)
    results.close()
    assert len(begun) < 20


def test_progress_says_rate_and_time_left(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    progress = Progress("pope", 100, shown=False)
    assert "time left unknown" in progress.line()
    now[0] += 10
    progress.advance(20)
    assert progress.line() == "pope: 20/100, 2.00/s, 0:00:10, 0:00:40 left"


def test_without_a_terminal_there_is_a_line_now_and_then(monkeypatch, caplog):
    caplog.set_level("INFO")
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with Progress("pope", 100, shown=True) as progress:
        for _ in range(100):
            now[0] += 1
            progress.advance(1)
    assert len(caplog.records) == 4
    assert "pope: 30/100, 1.00/s, 0:00:30, 0:01:10 left" in caplog.text
    assert "pope: 100/100" in caplog.text
