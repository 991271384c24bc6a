"""Kills processes that score captions, which start Java.

All answers are in the journal, so that the command does little but score. After each kill no
process that it started and none of its temporary files may be there; begun again it must end with
the results of a run that nobody disturbed.
"""

import random
import shutil
from dataclasses import dataclass
from pathlib import Path

from attack.children import Kill, Work, descendants, left_behind, random_kill, run
from attack.commands import differing, facts_of, otprune, write_experiment
from attack.tally import Tally
from attack.warm import MINI, keep_loaded, single_threaded

TASKS = ["flickr30k_test", "gqa"]

LIVES = 12
"""Kills on one journal, at most; a run that nobody disturbs takes 10 seconds."""


def attack(draw: random.Random, kills: int, folder: Path, tally: Tally) -> None:
    """Score the same answers again and again until so many processes were killed."""
    single_threaded()
    keep_loaded(MINI)
    whole = folder / "whole"
    whole.mkdir()
    write_experiment(whole / "try.yaml", TASKS, limit=3)
    tally.kill(run(_scoring(whole), deadline=300))
    shutil.rmtree(whole / "logs" / "answers" / "scores")
    ended = run(_scoring(whole), deadline=300)
    tally.kill(ended)
    attacked = _Attacked(whole, ended.seconds, draw, tally)
    number = 0
    while tally.counts["kills"] < kills:
        number += 1
        attacked.attack(folder / f"scores-{number}", kills)
        tally.count("runs")


def _scoring(folder: Path) -> Work:
    return otprune(folder, "run", "try.yaml", "--quiet")


@dataclass
class _Attacked:
    """A folder with all answers, and the seconds that scoring them takes."""

    whole: Path
    seconds: float
    draw: random.Random
    tally: Tally

    def attack(self, folder: Path, most: int) -> None:
        """Kill scoring processes in a folder, then let one end."""
        (folder / "logs").mkdir(parents=True)
        shutil.copy(self.whole / "try.yaml", folder)
        shutil.copytree(
            self.whole / "logs" / "answers",
            folder / "logs" / "answers",
            ignore=shutil.ignore_patterns("scores"),
        )
        for _ in range(self.draw.randrange(LIVES // 2, LIVES + 1)):
            self._run(folder, random_kill(self.draw, self.seconds))
            if self.tally.counts["kills"] >= most:
                break
        self._run(folder, None)
        found, want = (facts_of(one / "outputs" / "try") for one in (folder, self.whole))
        if names := differing(found, want):
            self.tally.fault("differing", f"{folder.name}: {names}", folder)
        self.tally.count("files compared", len(want))

    def _run(self, folder: Path, kill: Kill | None) -> None:
        """Run a process; nothing that it made for itself may be there a little later."""
        before = descendants()
        ended = run(_scoring(folder), kill)
        self.tally.kill(ended)
        started = descendants() - before
        if ended.killed is not None and started:
            self.tally.count("kills that left processes or files to be removed")
        if left := left_behind(before):
            self.tally.fault("processes", f"{left} after {kill}", folder)
        if left := sorted(one.name for one in (folder / "tmp").iterdir()):
            self.tally.fault("temporary files", f"{left} after {kill}", folder)
