"""Runs one sweep in two folders, with a journal each, and compares every file."""

import random
import shutil
from pathlib import Path

from attack.children import run
from attack.commands import MAY_DIFFER, differing, facts_of, files_of, otprune, write_experiment
from attack.tally import Tally
from attack.warm import MINI, keep_loaded, single_threaded

TASKS = ["gqa", "mme", "flickr30k_test"]


def attack(draw: random.Random, rounds: int, folder: Path, tally: Tally) -> None:
    """Compare two sweeps, as often as asked, each time with another limit on documents."""
    single_threaded()
    keep_loaded(MINI)
    for number in range(rounds):
        limit = 2 * draw.randrange(2, 6)
        found = []
        for name in ("one", "other"):
            place = folder / f"{name}-{number}"
            place.mkdir()
            write_experiment(place / "try.yaml", TASKS, limit=limit, picture=True)
            tally.kill(run(otprune(place, "sweep", "try.yaml", "--images", "2"), deadline=600))
            found.append(place / "outputs" / "try")
        one, other = found
        names = differing(facts_of(one), facts_of(other))
        if names or files_of(one).keys() != files_of(other).keys():
            tally.fault("differing", f"limit {limit}: {names}", folder)
        tally.count("files compared", len(facts_of(one)))
        tally.count("files of measured times", len(files_of(one).keys() & MAY_DIFFER))
        tally.count("sweeps", 2)
        for place in (folder / f"{name}-{number}" for name in ("one", "other")):
            shutil.rmtree(place)
