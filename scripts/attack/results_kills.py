"""Kills `run` and `sweep` while they write a results folder.

The answers are in the journal. The folder is empty at first, or of an earlier sweep of fewer
documents. Half of the kills come within milliseconds of the moment at which a file takes its place.
After each kill every file must be whole, the old one or the new one, and no page may stand beside
numbers that it was not made from; begun again, the command must leave what it leaves undisturbed.
"""

import json
import os
import random
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from otprune_lmms.reporting.figures import write as figures
from otprune_lmms.reporting.report import write as pages

from attack.children import Kill, Say, Work, descendants, left_behind, random_kill, run
from attack.commands import MAY_DIFFER, differing, facts_of, files_of, otprune, write_experiment
from attack.tally import Tally
from attack.warm import MINI, keep_loaded, single_threaded

TASKS = ["gqa", "mme"]
OLD, NEW = 2, 4
"""Documents of each task, of the earlier sweep and of those that are killed."""

FIGURES = {"differences", "selection_frequency"}
"""Kinds of figures that are drawn; all of them take a minute."""

SOURCES = ("records.csv", "samples.parquet")
"""What pages are made of."""

LIVES = 4
"""Kills on one folder, at most."""

COMMANDS = (("run",), ("sweep", "--images", "2"))


def attack(draw: random.Random, kills: int, folder: Path, tally: Tally) -> None:
    """Write the same results again and again until so many processes were killed."""
    single_threaded()
    keep_loaded(MINI)
    modules: tuple[Any, ...] = (figures, pages)
    for module in modules:
        module.KINDS = tuple(kind for kind in module.KINDS if kind.name in FIGURES)
    old = _made(folder / "old", OLD, COMMANDS[1], tally)
    new = [_made(folder / f"new-{command[0]}", NEW, command, tally) for command in COMMANDS]
    number = 0
    while tally.counts["kills"] < kills:
        number += 1
        undisturbed = draw.choice(new)
        place = folder / f"results-{number}"
        shutil.copytree(undisturbed.folder / "logs", place / "logs")
        shutil.copy(undisturbed.folder / "try.yaml", place)
        before: dict[str, bytes] = {}
        if draw.random() < 0.6:
            shutil.copytree(old.folder / "outputs", place / "outputs")
            before = old.facts
        _Attacked(place, undisturbed, before, draw, tally).attack(kills)
        tally.count("folders")
        shutil.rmtree(place)


@dataclass(frozen=True)
class _Undisturbed:
    """What a command leaves, in how many seconds and with how many replaced files."""

    folder: Path
    command: tuple[str, ...]
    facts: dict[str, bytes]
    seconds: float
    words: int


def _made(folder: Path, limit: int, command: tuple[str, ...], tally: Tally) -> _Undisturbed:
    folder.mkdir()
    write_experiment(folder / "try.yaml", TASKS, limit=limit, java="optional")
    tally.kill(run(_writing(folder, command), deadline=300))
    shutil.rmtree(folder / "outputs")
    ended = run(_writing(folder, command), deadline=300)
    tally.kill(ended)
    facts = facts_of(folder / "outputs" / "try")
    return _Undisturbed(folder, command, facts, ended.seconds, len(ended.said))


def _writing(folder: Path, command: tuple[str, ...]) -> Work:
    """Return a command that says a word before and after each file that takes its place."""
    name, *options = command
    work = otprune(folder, name, "try.yaml", "--quiet", *options)

    def saying(say: Say) -> object:
        replace = os.replace

        def said(*arguments: str, **options: int) -> None:
            say(0)
            replace(*arguments, **options)
            say(1)

        os.replace = said
        return work(say)

    return saying


@dataclass
class _Attacked:
    folder: Path
    undisturbed: _Undisturbed
    old: Mapping[str, bytes]
    draw: random.Random
    tally: Tally

    def attack(self, most: int) -> None:
        """Kill the command in its folder, then let it end."""
        for _ in range(self.draw.randrange(1, LIVES + 1)):
            self._run(self._kill())
            self._check()
            if self.tally.counts["kills"] >= most:
                break
        self._run(None)
        found = facts_of(self.folder / "outputs" / "try")
        found = {name: content for name, content in found.items() if not name.startswith(".")}
        if names := differing(found, self.undisturbed.facts):
            self._fault("differing", f"after the resumption: {names}")
        self.tally.count("files compared", len(found))

    def _kill(self) -> Kill:
        if self.draw.random() < 0.5:
            return random_kill(self.draw, self.undisturbed.seconds)
        return random_kill(self.draw, 0.005, self.draw.randrange(1, self.undisturbed.words + 1))

    def _run(self, kill: Kill | None) -> None:
        before = descendants()
        ended = run(_writing(self.folder, self.undisturbed.command), kill, deadline=120)
        self.tally.kill(ended)
        if left := left_behind(before):
            self._fault("processes", f"{left} after {kill}")
        if left := sorted(one.name for one in (self.folder / "tmp").iterdir()):
            self._fault("temporary files", f"{left} after {kill}")

    def _check(self) -> None:
        """Check that each file is whole and that no page is of other numbers."""
        results = self.folder / "outputs" / "try"
        found = files_of(results) if results.is_dir() else {}
        # What kill -9 leaves of a file that has not taken its place; removed after an hour.
        hidden = [name for name in found if Path(name).name.startswith(".")]
        self.tally.count("hidden files left by a kill", len(hidden))
        versions: dict[str, set[str]] = {}
        for name, content in found.items():
            if name in hidden:
                continue
            self.tally.count("files checked")
            if name in MAY_DIFFER:
                self._read(results / name)
                continue
            versions[name] = {
                version
                for version, facts in (("old", self.old), ("new", self.undisturbed.facts))
                if facts.get(name) == content
            }
            if not versions[name]:
                self._fault("half written", f"{name} is neither the old one nor the new one")
        sources = [versions.get(name, set()) for name in SOURCES]
        for name, own in versions.items():
            if name not in SOURCES and own and not all(own & source for source in sources):
                state = {one: sorted(versions.get(one, ())) for one in SOURCES}
                self._fault("stale", f"{name} is {sorted(own)} beside {state}")

    def _read(self, path: Path) -> None:
        """Read a file of measured times."""
        try:
            if path.suffix == ".json":
                json.loads(path.read_text())
            elif path.suffix == ".csv":
                pd.read_csv(path)
            else:
                pd.read_parquet(path)
        except (ValueError, OSError) as error:
            self._fault("half written", f"{path.name}: {error}")

    def _fault(self, kind: str, what: str) -> None:
        self.tally.fault(kind, f"{self.undisturbed.command}: {what}", self.folder)
