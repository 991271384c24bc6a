"""Kills processes that answer embedded questions; those begun again must end with the same answers.

The questions are the first ones of the embedded POPE, the model is llava-mini. One process at a
time, or two that share the questions out or find each other's answers in the journal.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llava.model.builder import load_pretrained_model
from otprune_lmms.engine import Engine, Request
from otprune_lmms.engine.tasks import requests_of
from otprune_lmms.experiments.config import TASKS
from otprune_lmms.journal import Journal
from otprune_lmms.models.llava import Llava
from otprune_lmms.pruning_config import PruningConfig
from otprune_lmms.scoring import load_tasks

from attack.children import Say, Work, random_kill, run, run_all
from attack.tally import Tally
from attack.warm import MINI, keep_loaded, single_threaded

QUESTIONS = 12

CONFIGS = (
    PruningConfig(),
    PruningConfig.make("otprune", 0.2),
    PruningConfig.make("random", 0.2),
    PruningConfig.make("divprune", 0.25, layer=2),
)

LIVES = 10
"""Processes that are killed one after another on one journal, at most."""

HOW = ("alone", "alone", "shared", "together")
"""One process; two with a share of the questions each; two with all of them."""


def attack(draw: random.Random, kills: int, folder: Path, tally: Tally) -> None:
    """Answer the same questions again and again until so many processes were killed."""
    single_threaded()
    keep_loaded(MINI)
    task = load_tasks(["pope"], TASKS / "mini")["pope"]
    questions = requests_of(task, "pope", limit=QUESTIONS)
    model = Llava(load_pretrained_model(MINI, device="cpu", torch_dtype="float32"), "vicuna_v1")
    assert model.fingerprint  # made here, and not in each child
    attacked = _Attacked(model, questions, draw, tally, folder / "whole")
    number = 0
    while tally.counts["kills"] < kills:
        number += 1
        attacked.attack(folder / f"answers-{number}", draw.choice(HOW), kills)
        tally.count("runs")


@dataclass
class _Attacked:
    model: Llava
    questions: Sequence[Request]
    draw: random.Random
    tally: Tally
    undisturbed: Path
    whole: dict[str, str] = field(default_factory=dict)
    records: dict[str, str | None] = field(default_factory=dict)
    seconds: float = 0.0

    def __post_init__(self) -> None:
        """Answer everything once without being disturbed."""
        ended = run(self._answering(self.undisturbed, self.questions))
        self.tally.kill(ended)
        self.whole, self.seconds = ended.said[-1]["answers"], ended.seconds
        with Journal(self.undisturbed, readonly=True) as opened:
            self.records = {_key(one): one.text for one in opened}
        if len(self.whole) != QUESTIONS * len(CONFIGS):
            raise ValueError(f"{len(self.whole)} answers: {ended.text}")

    def attack(self, journal: Path, how: str, most: int) -> None:
        """Kill processes on one journal until one ends, or enough were killed; then end it."""
        shares = [self.questions] if how == "alone" else [self.questions, self.questions]
        if how == "shared":
            shares = [self.questions[::2], self.questions[1::2]]
        finished: dict[str, str] = {}
        for _ in range(LIVES):
            kills = [random_kill(self.draw, 0.7 * self.seconds, 1) for _ in shares]
            ends = run_all([self._answering(journal, one) for one in shares], kills)
            new: list[dict[str, str]] = []
            for ended in ends:
                self.tally.kill(ended)
                found = [pair for said in ended.said for pair in said.get("finished", [])]
                if len(dict(found)) != len(found) or finished.keys() & dict(found).keys():
                    self._fault("repeated", f"{how}: {found}", journal)
                self.tally.count("answers reported", len(found))
                new.append(dict(found))
            finished |= {key: text for one in new for key, text in one.items()}
            self._check(journal, finished, how)
            if self.tally.counts["kills"] >= most or all(one.killed is None for one in ends):
                break
        ended = run(self._answering(journal, self.questions))
        self.tally.kill(ended)
        found = {key for said in ended.said for key, _ in said.get("finished", [])}
        if found & finished.keys():
            self._fault("repeated", f"{how}: {sorted(found & finished.keys())}", journal)
        if not ended.said or ended.said[-1].get("answers") != self.whole:
            self._fault("differing", f"{how}: {ended.said[-1:]}, {ended.text}", journal)
        self._check(journal, self.records, how)
        self.tally.count("answers checked", len(self.whole))

    def _check(self, journal: Path, finished: Mapping[str, str | None], how: str) -> None:
        """Hold a journal against what was reported, and against the undisturbed run."""
        if not journal.is_dir():
            return
        with Journal(journal, readonly=True) as opened:
            records = {_key(one): one.text for one in opened}
            repeated = opened.report.repeated
            if opened.report.skipped:
                self._fault("lines", f"{how}: {opened.report}", journal)
        lost = [key for key, text in finished.items() if records.get(key) != text]
        if lost:
            self._fault("lost", f"{how}: {lost}", journal)
        if repeated and how != "together":
            self._fault("repeated", f"{how}: {repeated} answers stand there twice", journal)
        differing = [key for key, text in records.items() if self.records.get(key) != text]
        if differing:
            self._fault("differing", f"{how}: {differing}", journal)

    def _fault(self, kind: str, what: str, journal: Path) -> None:
        self.tally.fault(kind, what, journal)

    def _answering(self, journal: Path, questions: Sequence[Request]) -> Work:
        """Return the work of a process that answers questions under all pruning configs."""

        def work(say: Say) -> None:
            single_threaded()
            with _Reporting(journal, say) as opened:
                say({})
                engine = Engine(
                    self.model, model_name="mini", batch_size=3, workers=1, journal=opened,
                    progress=False,
                )  # fmt: skip
                answers = engine.run(questions, CONFIGS)
            say({"answers": {f"{c.label} {r.doc_id}": a.text for (c, r), a in answers.items()}})

        return work


class _Reporting(Journal):
    """Says which answers are finished, once they are."""

    def __init__(self, folder: Path, say: Say) -> None:
        super().__init__(folder)
        self._say = say

    def append(self, *records: Any) -> None:
        super().append(*records)
        self._say({"finished": [[_key(one), one.text] for one in records]})


def _key(record: Any) -> str:
    return f"{record.config} {record.request}"
