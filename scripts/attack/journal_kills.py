"""Kills processes that append answers to a journal.

Every answer has a number and follows from it, so that it is known word for word. One to three
processes write into one folder, killed and begun again; in some rounds their clocks are days off,
every lock is granted, writes reach the file in pieces, or lines are damaged between two lives.
Afterwards every answer that was reported as appended must be there as it was given.
"""

import fcntl
import json
import os
import random
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from otprune_lmms.journal import Journal, Record, parts, writer
from otprune_lmms.journal.lines import decode

from attack.children import Say, Work, random_kill, run, run_all
from attack.tally import Tally

ANSWERS = 1200
LIVES = 12
"""Generations of processes in one folder, at most."""

LONGEST_LIFE = 0.03
"""Seconds that a process writes at the longest before it is killed."""

_LETTERS = 'answer one\n\t\u2028é\ud800\x00語"\\{}'


def record(number: int) -> Record:
    """Return the answer of a number, with text that is hard to write."""
    draw = random.Random(number)
    text = "".join(draw.choices(_LETTERS, k=int(10 ** draw.uniform(0, 3.5))))
    return Record(
        config=f"c{number % 3}" * 4,
        request=f"r{number}",
        settings={"method": "otprune", "keep_ratio": 0.098},
        task="pope",
        split="test",
        doc_id=number,
        index=0,
        kind="generate",
        text=text,
        kept=(56, 56),
        candidates=(576, 576),
        new_tokens=number % 7,
        seconds={"generate": draw.random()},
    )


@dataclass(frozen=True)
class Conditions:
    """Under which processes of a folder write.

    Attributes:
        processes: how many at the same time.
        shared: all of them have all numbers, instead of a share each.
        locks: whether locks exclude anyone, as on a local disk.
        days: how far their clocks may be off.
        pieces: whether a write reaches the file in pieces, as on a slow disk.
        damage: how likely a line is damaged between two lives.
    """

    processes: int
    shared: bool
    locks: bool
    days: float
    pieces: bool
    damage: float

    @classmethod
    def drawn(cls, draw: random.Random) -> "Conditions":
        """Return conditions of a folder."""
        return cls(
            processes=draw.choice([1, 1, 2, 3]),
            shared=draw.random() < 0.5,
            locks=draw.random() < 0.7,
            days=draw.choice([0, 0, 2.5]),
            pieces=draw.random() < 0.4,
            damage=draw.choice([0, 0.3]),
        )


def attack(draw: random.Random, kills: int, folder: Path, tally: Tally) -> None:
    """Fill journals until so many processes were killed.

    Args:
        draw: where everything random is drawn from.
        kills: how many.
        folder: where journals are made.
        tally: counts, and faults.
    """
    number = 0
    while tally.counts["kills"] < kills:
        number += 1
        one = _Folder(folder / f"journal-{number}", Conditions.drawn(draw), draw, tally)
        for _ in range(LIVES):
            one.live()
            if tally.counts["kills"] >= kills:
                break
        one.finish()
        tally.count("journals")


@dataclass
class _Folder:
    path: Path
    conditions: Conditions
    draw: random.Random
    tally: Tally
    reported: set[int] = field(default_factory=set)
    damaged: int = 0

    def live(self) -> None:
        """Let processes write until each is killed, and check what they leave."""
        works = [self._writing(place) for place in range(self.conditions.processes)]
        kills = [random_kill(self.draw, LONGEST_LIFE, self.draw.choice([0, 1])) for _ in works]
        own: list[set[int]] = []
        for ended in run_all(works, kills):
            self.tally.kill(ended)
            written = [number for numbers in ended.said[1:] for number in numbers]
            self.tally.count("answers reported", len(written))
            if self.reported & set(written) or len(set(written)) != len(written):
                self._fault("repeated", "a process has answered what was answered before it began")
            own.append(set(written))
        self.reported.update(*own)
        self.check()
        if self.draw.random() < self.conditions.damage:
            self._damage()
            self.check()

    def finish(self) -> None:
        """Let one process answer the rest undisturbed; every answer must be there then."""
        ended = run(_writer(self.path, range(ANSWERS), Conditions(1, True, True, 0, False, 0), 0))
        self.tally.kill(ended)
        self.reported = set(range(ANSWERS))
        self.check()

    def check(self) -> None:
        """Hold the journal against what was reported."""
        if not self.path.is_dir():
            return
        with Journal(self.path, readonly=True) as journal:
            found = {one.doc_id: one for one in journal}
            lost = [number for number in self.reported if journal.find(record(number).key) is None]
            skipped, repeated = journal.report.skipped, journal.report.repeated
        self.tally.count("answers checked", len(found))
        if lost:
            self._fault("lost", f"answers {sorted(lost)}")
        differing = [number for number, one in found.items() if one != record(number)]
        if differing:
            self._fault("differing", f"answers {sorted(differing)}")
        if skipped != self.damaged:
            self._fault("lines", f"{skipped} lines are skipped, {self.damaged} are damaged")
        if repeated and (not self.conditions.shared or self.conditions.processes == 1):
            self._fault("repeated", f"{repeated} answers stand in the journal twice")

    def _writing(self, place: int) -> Work:
        """Return the work of one of this folder's processes."""
        numbers = list(range(ANSWERS))
        if not self.conditions.shared:
            numbers = numbers[place :: self.conditions.processes]
        self.draw.shuffle(numbers)
        return _writer(self.path, numbers, self.conditions, self.draw.randrange(1 << 30))

    def _damage(self) -> None:
        """Flip a bit of a whole line, add a line of noise, or cut off the end of a file."""
        files = sorted(self.path.glob("part-*.jsonl"))
        if not files:
            return
        path = self.draw.choice(files)
        lines = _lines(path.read_bytes())
        whole = [n for n, line in enumerate(lines) if decode(line) is not None]
        if not whole:
            return
        self.tally.count("lines damaged")
        kind, number = self.draw.randrange(3), self.draw.choice(whole)
        if kind == 0:
            lines[number] = _flipped(lines[number], self.draw)
            self.damaged += 1
        elif kind == 1:
            noise = self.draw.randbytes(50).replace(b"\n", b" ")
            lines.insert(number, noise + b"\n")
            self.damaged += 1
        else:
            number = whole[-1]
            self.damaged -= sum(line[-1:] == b"\n" for line in lines[number + 1 :])
            lines[number:] = [lines[number][: self.draw.randrange(1, len(lines[number]))]]
        before = path.read_bytes()
        path.write_bytes(b"".join(lines))
        self.reported -= _answers(before) - _answers(path.read_bytes())
        # Another process may have answered the same; what is left of it is enough.
        self.reported |= set().union(*(_answers(one.read_bytes()) for one in files))

    def _fault(self, kind: str, what: str) -> None:
        self.tally.fault(kind, f"{self.path.name}, {self.conditions}: {what}", self.path)


def _flipped(line: bytes, draw: random.Random) -> bytes:
    """Return a line with one bit changed that neither makes nor takes a line break."""
    while True:
        changed = bytearray(line)
        changed[draw.randrange(len(line) - 1)] ^= 1 << draw.randrange(8)
        if b"\n" not in changed[:-1]:
            return bytes(changed)


def _lines(content: bytes) -> list[bytes]:
    """Return lines with their ends; the last one may have none."""
    return [line for line in re.split(rb"(?<=\n)", content) if line]


def _answers(content: bytes) -> set[int]:
    """Return the numbers of the answers in a file's whole lines."""
    found = set()
    for line in _lines(content):
        text = decode(line)
        if text is not None:
            answer = json.loads(text).get("answer")
            if answer:
                found.add(answer["doc_id"])
    return found


def _writer(folder: Path, numbers: Sequence[int], conditions: Conditions, seed: int) -> Work:
    """Return the work of a process that appends answers, and reports them once they are."""

    def work(say: Say) -> None:
        draw = random.Random(seed)
        _set_up(conditions, draw)
        left = list(numbers)
        with Journal(folder, {"experiment": "attack"}) as journal:
            say("open")
            while left:
                some = [left.pop() for _ in range(min(len(left), draw.randrange(1, 8)))]
                if conditions.shared and draw.random() < 0.3:
                    journal.refresh()
                new = [one for one in map(record, some) if journal.find(one.key) is None]
                if new:
                    journal.append(*new)
                    say([one.doc_id for one in new])
                if draw.random() < 0.02:
                    journal.flush()

    return work


def _set_up(conditions: Conditions, draw: random.Random) -> None:
    """Change locks, clock and disk of this process."""
    if not conditions.locks:
        names = ("LOCK_EX", "LOCK_SH", "LOCK_NB", "LOCK_UN")
        granted: Any = SimpleNamespace(**{name: getattr(fcntl, name) for name in names})
        granted.flock = lambda *_: None
        parts.fcntl = granted
    if conditions.days:
        shift = timedelta(days=draw.uniform(-conditions.days, conditions.days))

        class Shifted(datetime):
            """A clock that is off."""

            @classmethod
            def now(cls, tz: Any = None) -> "Shifted":
                return super().now(tz) + shift

        writer.datetime = Shifted
    if conditions.pieces:
        writer.os = _Pieces(draw)


class _Pieces:
    """The module `os`, whose `write` writes a part at a time and is slow."""

    def __init__(self, draw: random.Random) -> None:
        self._draw = draw

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def write(self, descriptor: int, content: memoryview) -> int:
        written = os.write(descriptor, content[: self._draw.randrange(1, len(content) + 1)])
        time.sleep(self._draw.uniform(0, 0.001))
        return written
