"""The training loop; a step depends on the seed and its number alone, so it can be resumed."""

import json
import os
import time
from collections import defaultdict
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from features import Features
from formats import Turn, lesson
from naming import naming_accuracy, patch_words, side_ids, word_ids
from network import Learner, Patches
from optimisers import Optimisers
from packing import Packer
from scenes import make_scene
from torch import nn
from transformers import PreTrainedTokenizerBase

FULL = 256
"""Visual tokens of an image at 224 pixels, the size that is evaluated."""


@dataclass(frozen=True)
class Stage:
    """A stretch of training.

    Attributes:
        name: of the stage, in the log.
        sides: pixels of the images, drawn anew for each step; their features are read from
            ``<split><side>.npy``.
        compact: whether fewer visual tokens stand close together, as kept tokens do after pruning,
            or spread over the positions of all.
        steps: optimiser steps.
        batch: scenes in a step.
        short: questions drawn per scene; some fall away.
        letters: questions with options drawn per scene.
        captions: whether a caption is taught.
        lists: lists of all objects taught.
        text: tokens of text for each scene; questions that do not fit are left out.
        naming: weight of naming the patches; without any questions that is all that is taught.
        first_rate: learning rate at the first step.
        last_rate: learning rate at the last step; between them it changes linearly.
        others: learning rate of embeddings, norms and biases, relative to that of the matrices.
        focus: how often a family of questions is asked where that is not the default (`lesson`).
        placing: weight of teaching on which sides of the image a patch is.
        tower: folder of the features, in that of all features.
    """

    name: str
    sides: list[int]
    compact: bool
    steps: int
    batch: int
    short: int
    letters: int
    captions: int
    lists: int
    text: int
    naming: float
    first_rate: float
    last_rate: float
    others: float
    focus: dict[str, float] = field(default_factory=dict)
    placing: float = 0.0
    tower: str = "."


class Trainer:
    """Trains a learner in stages and writes what is needed to go on after each fifty steps.

    Args:
        tokenizer: the model's.
        features: folder of the features.
        out: folder of the state and the log.
        seed: of the weights and of every step's questions.
        space: what stands before a word within a sentence; see `naming.word_ids`.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        features: Path,
        out: Path,
        seed: int,
        space: str = "",
    ) -> None:
        self.tokenizer, self.folder, self.out, self.seed = tokenizer, features, out, seed
        out.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(seed)
        self.model = self._learner()
        self.optimisers = Optimisers(self.model)
        self.words = word_ids(tokenizer, space)
        self.sides = side_ids(tokenizer, space)
        self.step = 0
        self.spent = 0.0
        self.started = time.perf_counter()

    def _learner(self) -> Any:
        """Return the learner as it begins."""
        sample = Features(self.folder / "check224.npy").rows(np.arange(200)).flatten(0, 1)
        return Learner(len(self.tokenizer.get_vocab()), sample.mean(0), sample.std(0))

    def resume(self, file: Path) -> None:
        """Go on from a state that `save` wrote."""
        state = torch.load(file, weights_only=True)
        self.model.load_state_dict(state["model"])
        for part, saved in zip(self.optimisers.parts, state["optimisers"], strict=True):
            part.load_state_dict(saved)
        self.step, self.spent = state["step"], state["seconds"]

    def save(self) -> None:
        """Write the state; an interrupted writing leaves the one before it."""
        state = {
            "model": self.model.state_dict(),
            "optimisers": [part.state_dict() for part in self.optimisers.parts],
            "step": self.step,
            "seconds": self._seconds(),
        }
        fresh = self.out / "state.new"
        torch.save(state, fresh)
        os.replace(fresh, self.out / "state.pt")

    def _seconds(self) -> float:
        return self.spent + time.perf_counter() - self.started

    def _lessons(self, stage: Stage, ready: int, most: int) -> tuple[np.ndarray, list[list[Turn]]]:
        rng = np.random.default_rng([self.seed, self.step])
        numbers = rng.choice(ready, stage.batch, replace=False)
        made = []
        for number in numbers:
            scene = make_scene("train", int(number), most=most)
            asked = (stage.short, stage.letters, stage.captions, stage.lists, stage.focus)
            made.append(lesson(scene, rng, *asked))
        return numbers, made

    def _words(self, numbers: np.ndarray, table: Features) -> torch.Tensor:
        visual, most = table.table.shape[1], table.meta["most"]
        scenes = [make_scene(table.meta["split"], int(number), most=most) for number in numbers]
        return torch.from_numpy(
            np.stack([patch_words(scene, visual, self.words) for scene in scenes])
        )

    def run(self, stage: Stage, first: int) -> None:
        """Train until the stage, which begins at step ``first``, has had all its steps."""
        folder = self.folder / stage.tower
        tables = {side: Features(folder / f"train{side}.npy") for side in stage.sides}
        packers = {side: self._packer(tables[side], stage) for side in stage.sides}
        decoder = self.model.compiled()
        losses: list[float] = []
        while self.step < first + stage.steps:
            side = stage.sides[
                np.random.default_rng([self.seed, self.step, 1]).integers(len(tables))
            ]
            table, packer = tables[side], packers[side]
            numbers, lessons = self._lessons(stage, table.ready, table.meta["most"])
            features, words = table.rows(numbers), self._words(numbers, table)
            if stage.short:
                batch = packer.pack(lessons, stage.text)
                patches = Patches(words, stage.naming, self.sides, stage.placing)
                loss = self.model.loss(features, batch, patches, decoder)
            else:
                loss = self.model.named(self.model.projected(features), words)
            loss.backward()
            nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            done = (self.step - first) / stage.steps
            warm = min(1.0, (self.step + 1) / 100)
            self.optimisers.step(
                warm * (stage.first_rate + done * (stage.last_rate - stage.first_rate)),
                stage.others,
            )
            self.step += 1
            losses.append(loss.item())
            if self.step % 50 == 0 or self.step == first + stage.steps:
                self._report(stage, packers, losses)
                losses.clear()
                self.save()

    def _packer(self, table: Features, stage: Stage) -> Packer:
        visual = table.table.shape[1]
        return Packer(self.tokenizer, visual, visual if stage.compact else FULL)

    def _report(self, stage: Stage, packers: dict[int, Packer], losses: list[float]) -> None:
        side = max(stage.sides)
        line = {
            "step": self.step,
            "stage": stage.name,
            "minutes": round(self._seconds() / 60, 1),
            "loss": round(float(np.mean(losses)), 4),
            "check": self.check(packers[side], side, stage.tower),
        }
        with (self.out / "log.jsonl").open("a", encoding="utf-8") as log:
            log.write(json.dumps(line) + "\n")

    @torch.no_grad()
    def check(
        self, packer: Packer, side: int, tower: str = ".", scenes: int = 200
    ) -> dict[str, float]:
        """Return the share of right answers by family on scenes that training never shows.

        An answer is right when each of its tokens is the likeliest after those before it, which is
        when greedy decoding gives it.
        """
        table = Features(self.folder / tower / f"check{side}.npy")
        named = naming_accuracy(
            self.model.projected(table.rows(np.arange(50))),
            self._words(np.arange(50), table),
            self.model.head,
        )
        rng = np.random.default_rng(7)
        right: dict[str, list[bool]] = defaultdict(list)
        for numbers in np.array_split(np.arange(scenes), scenes // 20):
            made = [make_scene("check", int(i), most=table.meta["most"]) for i in numbers]
            lessons = [lesson(scene, rng, 10, 3, 1, 1) for scene in made]
            batch = packer.pack(lessons)
            logits, labels = self.model(table.rows(numbers), batch)
            hits = torch.zeros_like(batch.labels, dtype=torch.bool)
            hits[batch.labels >= 0] = logits.argmax(-1) == labels
            for row, spans in zip(hits, batch.families, strict=True):
                for family, span in spans:
                    right[family].append(bool(row[span].all()))
        shares = {family: float(np.mean(hit)) for family, hit in sorted(right.items())}
        return {name: round(share, 3) for name, share in {**shares, "patches": named}.items()}


def train(trainer: Trainer, stages: list[Stage]) -> None:
    """Run the stages one after another; those that were finished are passed over."""
    (trainer.out / "stages.json").write_text(json.dumps([asdict(s) for s in stages], indent=1))
    first = 0
    for stage in stages:
        trainer.run(stage, first)
        first += stage.steps
