"""Samples as data for the page's browser of samples: lists and numbers, each text stored once."""

import ast
import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from otprune_lmms.benchmarks import benchmark
from otprune_lmms.documents import DocumentKey
from otprune_lmms.reporting.escape import flat
from otprune_lmms.reporting.figures.data import ImageSource
from otprune_lmms.reporting.figures.style import UNPRUNED_LOOK, look
from otprune_lmms.reporting.report.choose import choose_samples, counts, disagree
from otprune_lmms.reporting.report.pictures import EmbeddedImages, KeptPatches
from otprune_lmms.reporting.report.store import SampleStore
from otprune_lmms.results.frames import Frame
from otprune_lmms.results.names import Names

LONGEST = 1000
"""Characters of a text that are shown; of a longer one the beginning, and how long it was."""

ReferenceSource = Callable[[Sequence[DocumentKey]], Mapping[DocumentKey, list[str]]]
"""Returns the reference answers of documents whose target is no answer."""


class Texts:
    """Texts by number; equal texts are one."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self._numbers: dict[str, int] = {}

    def add(self, text: str) -> int:
        """Return the number of a text, cut to `LONGEST`."""
        long = len(text) > LONGEST
        cut = f"{text[:LONGEST]} … ({len(text)} characters)" if long else text
        if cut not in self._numbers:
            self._numbers[cut] = len(self.texts)
            self.texts.append(cut)
        return self._numbers[cut]


def embed(
    store: SampleStore,
    diagnostics: Frame | None,
    images: ImageSource | None,
    references: ReferenceSource | None,
    per_task: int,
    names: Names,
) -> dict[str, Any]:
    """Return what ``samples.js`` draws, ready for JSON.

    Args:
        store: the samples.
        diagnostics: what each setting keeps of each image; None where it was not measured.
        images: images of the documents; None if there are none.
        references: reference answers of documents whose target is no answer.
        per_task: documents of each task.
        names: of the settings.
    """
    kept = KeptPatches(diagnostics, store.models, store.settings)
    chosen = choose_samples(store.numbers, per_task, kept.clusters)
    places = [(str(line.task), int(line.doc_id)) for line in chosen.itertuples()]
    embedded, texts = EmbeddedImages(), Texts()
    found = {} if images is None else images(places)
    silent = [place for place in places if place[0] in store.silent]
    known = references(silent) if references is not None and silent else {}
    tasks = list(dict.fromkeys(task for task, _ in places))
    shown = []
    for place, own in store.of(places).items():
        one = own.iloc[0]
        targets = known.get(place, []) if place in silent else spelt_out(str(one["target"]))
        shown.append(
            {
                "task": tasks.index(place[0]),
                "doc": place[1],
                "images": [embedded.add(image) for image in found.get(place, [])],
                "question": texts.add(str(one["prompt"])),
                "references": [texts.add(target) for target in targets],
                "answers": _answers(own, store.models, store.settings, texts),
                "kept": kept.of(str(one["cluster"]), len(found.get(place, ()))),
                "disagree": disagree(own),
            }
        )
    # What has patches to be seen comes first.
    shown.sort(key=lambda sample: all(one is None for one in sample["kept"]))
    return {
        "models": [flat(model) for model in store.models],
        "settings": _settings(store, names),
        "tasks": _tasks(store.numbers, tasks, chosen),
        "pictures": [dataclasses.asdict(one) for one in embedded.images],
        "texts": texts.texts,
        "samples": shown,
    }


def _tasks(samples: Frame, tasks: list[str], chosen: Frame) -> list[dict[str, Any]]:
    documents, shown = counts(samples), chosen["task"].value_counts()
    found = []
    for task in tasks:
        record = benchmark(task, [task])
        found.append(
            {"id": flat(task), "name": flat(record.column), "documents": documents[task]}
            | {"shown": int(shown[task]), "best": record.best_share, "scale": record.scale}
            | {"digits": record.digits, "metric": flat(record.metric.rpartition("_")[2])}
        )
    return found


def _settings(store: SampleStore, names: Names) -> list[dict[str, Any]]:
    first = store.numbers.drop_duplicates("setting").set_index("setting")["method"]
    methods = [one for one in dict.fromkeys(first) if isinstance(one, str)]
    found = []
    for setting in store.settings:
        pruned = isinstance(first[setting], str)
        colour = look(first[setting], methods).colour if pruned else UNPRUNED_LOOK.colour
        found.append({"label": flat(names.setting(setting)), "pruned": pruned, "colour": colour})
    return found


def _answers(
    own: Frame, models: list[str], settings: list[str], texts: Texts
) -> list[list[int | float | None]]:
    """Return model, setting, text, value, kept and candidate tokens of each answer."""
    found = []
    for line in own.itertuples():
        value = float(line.value)
        found.append(
            [
                models.index(line.model),
                settings.index(line.setting),
                texts.add(str(line.answer)),
                None if math.isnan(value) else round(value, 6),
                int(line.kept),
                int(line.candidates),
            ]
        )
    return sorted(found, key=lambda answer: (answer[0], answer[1]))


def spelt_out(target: str) -> list[str]:
    """Return a target as a list of references: one, or those of a list written as Python has it."""
    if target.startswith("[") and target.endswith("]"):
        try:
            found = ast.literal_eval(target)
        except (SyntaxError, ValueError, MemoryError, RecursionError):
            return [target]
        if isinstance(found, list) and found and all(isinstance(one, str) for one in found):
            return list(dict.fromkeys(found))
    return [target]
