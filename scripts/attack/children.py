"""Child processes that work until they are killed, and what they had said by then.

A child is forked from this process, which has everything imported, so that a kill costs
milliseconds. It speaks through a pipe; what it prints goes into a file.
"""

import contextlib
import ctypes
import io
import json
import os
import random
import select
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

import psutil

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)

DEADLINE = 60.0
"""Seconds after which a child that was left alone, or was asked to stop, is taken for hung."""

_STOPPING = {signal.SIGINT, signal.SIGTERM}

_SET_CHILD_SUBREAPER = 36
"""Number of Linux's PR_SET_CHILD_SUBREAPER for `prctl`."""

Say = Callable[[object], None]
"""Tells the parent something that JSON can hold."""

Work = Callable[[Say], object]
"""What a child does; its `SystemExit` is the child's status, any other error a traceback and 1."""


@dataclass(frozen=True)
class Kill:
    """When a child gets which signal.

    Attributes:
        number: the signal.
        after: seconds.
        words: the seconds count from the moment at which the child has said this often something.
    """

    number: int
    after: float
    words: int = 0


@dataclass
class Ended:
    """A child that has ended.

    Attributes:
        said: what it told, in order.
        status: its exit status, or minus the number of the signal that ended it.
        text: what it printed, both outputs together.
        killed: the signal that it was sent; None if it ended before.
        hung: whether it was killed because it went on beyond the deadline.
        seconds: from its start to its end.
    """

    said: list[Any]
    status: int
    text: str
    killed: int | None
    hung: bool
    seconds: float

    @property
    def stopped_well(self) -> bool:
        """Whether it ended by itself with status 0, or as a process that was sent its signal."""
        if self.hung:
            return False
        if self.killed is None:
            return self.status == 0
        return self.status in (0, -self.killed, 128 + self.killed)


def random_kill(draw: random.Random, longest: float, words: int = 0) -> Kill:
    """Return a kill at a moment that is drawn evenly; half of them are kill -9."""
    number = signal.SIGKILL if draw.random() < 0.5 else draw.choice(SIGNALS[1:])
    return Kill(number, draw.uniform(0, longest), words)


def run(work: Work, kill: Kill | None = None, deadline: float = DEADLINE) -> Ended:
    """Run one child to its end."""
    (ended,) = run_all([work], [kill], deadline)
    return ended


def run_all(
    works: Sequence[Work], kills: Sequence[Kill | None], deadline: float = DEADLINE
) -> list[Ended]:
    """Run children at the same time; return how each has ended.

    Args:
        works: what each does.
        kills: what each is sent; None for a child that is left alone.
        deadline: seconds after the start, or after the signal, at which a child is taken for hung.
    """
    with contextlib.ExitStack() as stack:
        children = [
            _Child(work, kill, stack.enter_context(tempfile.TemporaryFile()))
            for work, kill in zip(works, kills, strict=True)
        ]
        while running := [one for one in children if one.status is None]:
            pause = max(0.0, min(one.next_event(deadline) for one in running) - time.monotonic())
            places = {place: one for one in running for place in one.places()}
            for place in select.select(list(places), [], [], min(pause, 1.0))[0]:
                places[place].listen()
            for one in running:
                one.act(deadline)
        return [one.ended() for one in children]


@dataclass
class _Child:
    work: Work
    kill: Kill | None
    output: Any
    status: int | None = None
    killed: int | None = None
    hung: bool = False
    _said: bytearray = field(default_factory=bytearray)

    def __post_init__(self) -> None:
        read, write = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _STOPPING)
        try:
            self.pid = os.fork()
            if not self.pid:
                _live(self.work, write, self.output.fileno())
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        os.close(write)
        os.set_blocking(read, False)
        self._pipe: int | None = read
        self._end = os.pidfd_open(self.pid)
        self.begun = time.monotonic()
        self._due: float | None = None
        self._since = self.begun
        self._plan()

    def _plan(self) -> None:
        """Fix the moment of the kill once its words are said."""
        if self.kill and self._due is None and self._said.count(b"\n") >= self.kill.words:
            self._due = time.monotonic() + self.kill.after

    def places(self) -> list[int]:
        return [self._end, *([] if self._pipe is None else [self._pipe])]

    def next_event(self, deadline: float) -> float:
        kill = self._due if self._due is not None and self.killed is None else float("inf")
        return min(kill, self._since + deadline)

    def listen(self) -> None:
        while self._pipe is not None:
            try:
                found = os.read(self._pipe, 1 << 16)
            except BlockingIOError:
                break
            self._said.extend(found)
            if not found:
                os.close(self._pipe)
                self._pipe = None
        self._plan()

    def act(self, deadline: float) -> None:
        """Collect the child if it has ended; else send what is due."""
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        now = time.monotonic()
        if pid:
            self.listen()
            self.status = os.waitstatus_to_exitcode(status)
            self.seconds = now - self.begun
            for place in self.places():
                os.close(place)
            return
        if self.kill and self._due is not None and self.killed is None and now >= self._due:
            self.killed = self.kill.number
            self._since = now
            os.kill(self.pid, self.killed)
        if now >= self._since + deadline and not self.hung:
            self.hung = True
            os.kill(self.pid, signal.SIGKILL)

    def ended(self) -> Ended:
        assert self.status is not None
        self.output.seek(0)
        text = self.output.read().decode(errors="replace")
        # Of a word that was cut off nothing is known.
        words = [json.loads(line) for line in bytes(self._said).split(b"\n")[:-1]]
        return Ended(words, self.status, text, self.killed, self.hung, self.seconds)


def _live(work: Work, pipe: int, output: int) -> NoReturn:
    """Be a child: work, say how it ends, never return."""
    status = 1
    # Two of them: the one signal that a child is sent may arrive while the inner one is left.
    try:
        try:
            status = _work(work, pipe, output)
        except KeyboardInterrupt:
            status = 128 + signal.SIGINT
        finally:
            os._exit(status)
    finally:
        os._exit(status)


def _work(work: Work, pipe: int, output: int) -> int:
    os.setsid()
    nothing = os.open(os.devnull, os.O_RDONLY)
    for given, place in ((nothing, 0), (output, 1), (output, 2)):
        os.dup2(given, place)
    sys.stdout = io.TextIOWrapper(io.FileIO(1, "w", closefd=False), "utf-8", write_through=True)
    sys.stderr = io.TextIOWrapper(
        io.FileIO(2, "w", closefd=False), "utf-8", "backslashreplace", write_through=True
    )
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def say(content: object) -> None:
        os.write(pipe, json.dumps(content).encode() + b"\n")

    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPPING)
        work(say)
    except SystemExit as end:
        if end.code is not None and not isinstance(end.code, int):
            sys.stderr.write(f"{end.code}\n")
            return 1
        return end.code or 0
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BaseException:  # noqa: BLE001 - what a child raises is what an attack looks for
        traceback.print_exc()
        return 1
    return 0


def adopt_orphans() -> None:
    """Let processes whose parent is killed become children of this one, so that they are seen."""
    ctypes.CDLL(None).prctl(_SET_CHILD_SUBREAPER, 1)


def descendants() -> set[int]:
    """Return the ids of all processes below this one; those that have ended are collected."""
    found = set()
    for one in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if one.status() == psutil.STATUS_ZOMBIE:
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(one.pid, os.WNOHANG)
            else:
                found.add(one.pid)
    return found


def left_behind(before: set[int], seconds: float = 10.0) -> list[str]:
    """Return names of processes below this one that still run after some seconds.

    Args:
        before: ids of those that ran before, see `descendants`.
        seconds: how long is waited for their end.
    """
    end = time.monotonic() + seconds
    while (left := descendants() - before) and time.monotonic() < end:
        time.sleep(0.02)
    names = []
    for pid in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            names.append(" ".join(psutil.Process(pid).cmdline())[:200])
            os.kill(pid, signal.SIGKILL)
    return names
