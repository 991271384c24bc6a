"""Gives bad inputs to every door: each must end in a sentence that names it, not with status 0."""

import random
import re
import shutil
import signal
from pathlib import Path

from attack.children import Ended, run
from attack.doors import DOORS
from attack.doors.case import Case
from attack.tally import Tally
from attack.warm import MINI, keep_index, keep_loaded, single_threaded

TRACEBACK = "Traceback (most recent call last)"


def attack(draw: random.Random, inputs: int, folder: Path, tally: Tally) -> None:
    """Give so many bad inputs, shared out among the doors by their weights."""
    single_threaded()
    keep_loaded(MINI)
    keep_index()
    total = sum(weight for _, weight in DOORS.values())
    for name, (door, weight) in DOORS.items():
        for number in range(max(1, round(inputs * weight / total))):
            place = folder / "case"
            place.mkdir()
            case = door(draw, place)
            ended = run(case.work)
            tally.count("inputs")
            tally.count(f"inputs: {name}")
            tally.count("refused" if ended.status else "used, left out or made anew")
            if kind := fault_of(case, ended):
                text = f"{name} {number}: {case.what}\nstatus {ended.status}\n{ended.text}"
                tally.fault(kind, text, place)
            shutil.rmtree(place)


def fault_of(case: Case, ended: Ended) -> str:
    """Return the kind of fault that a case's end is; "" for none."""
    if ended.hung:
        return "hang"
    if TRACEBACK in ended.text:
        return "traceback"
    if ended.status < 0:
        return f"ended by {signal.Signals(-ended.status).name}"
    if ended.status == 0:
        return case.check(ended) if case.may_work else "accepted"
    text = _plain(ended.text)
    if not any(_plain(word) in text for word in case.named if word.strip()):
        return "unnamed"
    return case.check(ended)


def _plain(text: str) -> str:
    """Return a text without what a terminal's layout adds to it: spaces, line breaks, frames."""
    return re.sub(r"[\s\u2500-\u257f]", "", text).lower()
