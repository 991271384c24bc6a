"""The benchmarks' prompts: the text after the image, and the expected answer.

The sentences are those of lmms-eval's task files, so that training and evaluation prompt alike.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from captions import caption
from questions import FAMILIES, YES_NO, Question
from scenes import Scene

SHORT = "\nAnswer the question using a single word or phrase."
LETTER = "\nAnswer with the option's letter from the given choices directly."
UNSURE = "\nWhen the provided information is insufficient, respond with 'Unanswerable'."
CAPTION = "Provide a one-sentence caption for the provided image."
OPTIONS = "There are several options:"
HINT = "The picture shows drawn objects on a textured background."


@dataclass(frozen=True)
class Turn:
    """One question as a model reads it, and the answer it should give."""

    family: str
    prompt: str
    answer: str


def options(question: Question, rng: np.random.Generator, most: int = 4) -> tuple[list[str], int]:
    """Return shuffled options, the right one among them, and its place."""
    others = [choice for choice in question.choices if choice != question.answer]
    picked = [others[i] for i in rng.permutation(len(others))[: most - 1]]
    place = int(rng.integers(len(picked) + 1))
    return [*picked[:place], question.answer, *picked[place:]], place


def lettered(choices: list[str]) -> str:
    """Return the options, one a line, each behind its letter."""
    return "\n".join(f"{chr(65 + i)}. {choice}" for i, choice in enumerate(choices))


def direct(question: Question) -> Turn:
    """POPE, MME, GQA."""
    return Turn(question.family, question.text + SHORT, question.answer)


def unsure(question: Question) -> Turn:
    """OK-VQA."""
    return Turn(question.family, question.text + UNSURE + SHORT, question.answer)


def open_ended(question: Question) -> Turn:
    """MMMU's questions without options."""
    return Turn(question.family, f"<image 1> {question.text}\n{SHORT}", question.answer)


def described(scene: Scene) -> Turn:
    """COCO, Flickr30k, NoCaps. Training teaches the first phrase."""
    return Turn("caption", CAPTION, caption(scene, 0))


def listed(scene: Scene, rng: np.random.Generator) -> Turn:
    """A list of all objects, in training only.

    No benchmark asks for it, but it teaches quickly what all of them need: each word after an
    object's first is found by looking for the object that the words before it name.
    """
    fields = [("color", "colour"), ("kind", "kind"), ("place", "place")]
    order = [fields[i] for i in rng.permutation(3)]
    objects = [scene.things[i] for i in rng.permutation(len(scene.things))]
    names = ", ".join(word for word, _ in order)
    told = ", ".join(" ".join(getattr(o, field) for _, field in order) for o in objects)
    return Turn("list", f"List every object by {names}.", told)


def choose(question: Question, rng: np.random.Generator, style: str) -> Turn:
    """MMBench, SEED-Bench, ScienceQA, MMMU."""
    choices, place = options(question, rng)
    letters, text = lettered(choices), question.text
    prompt = {
        "mmbench": f"{text} {OPTIONS}\n{letters}\n{LETTER}",
        "seedbench": f"{text}\n{letters}{LETTER}",
        "scienceqa": f"Context: {HINT}\n{text}\n{letters}{LETTER}",
        "mmmu": f"<image 1> {text}\n{letters}\n{LETTER}",
    }[style]
    return Turn("letter", prompt, chr(65 + place))


DIRECT = {
    "exists": 4, "exists_kind": 3, "exists_fact": 1, "colour": 2, "colour_fact": 1,
    "colour_yes": 2, "kind": 2, "count": 2, "count_yes": 1, "more_yes": 0.5, "where": 3,
    "relation": 3, "relation_yes": 2, "size": 1.5, "ground": 0.6, "ground_yes": 0.6,
}  # fmt: skip
"""How often a family is asked of a training scene, relative to the others."""

LETTERED = {"colour": 2, "kind": 2, "count": 2, "where": 2, "ground": 0.5, "relation": 1}


def _draw(weights: dict[str, float], scene: Scene, rng: np.random.Generator) -> Question | None:
    names = list(weights)
    shares = np.array(list(weights.values())) / sum(weights.values())
    return FAMILIES[str(rng.choice(names, p=shares))](scene, rng)


def lesson(
    scene: Scene,
    rng: np.random.Generator,
    short: int,
    letters: int,
    captions: int,
    lists: int = 0,
    focus: Mapping[str, float] = MappingProxyType({}),
) -> list[Turn]:
    """Return different turns about one scene, at most the given number of each sort.

    ``focus`` says how often a family is asked where that differs from `DIRECT`.
    """
    turns: dict[str, Turn] = {CAPTION: described(scene)} if captions else {}
    for _ in range(lists):
        asked = listed(scene, rng)
        turns.setdefault(asked.prompt, asked)
    for _ in range(letters):
        question = _draw(LETTERED, scene, rng)
        style = str(rng.choice(["mmbench", "seedbench", "scienceqa", "mmmu"]))
        if question is not None and question.choices != YES_NO:
            asked = choose(question, rng, style)
            turns.setdefault(asked.prompt, asked)
    for _ in range(short):
        question = _draw({**DIRECT, **focus}, scene, rng)
        if question is not None:
            asked = unsure(question) if question.family == "knowledge" else direct(question)
            if letters and rng.random() < 0.05:
                asked = open_ended(question)
            turns.setdefault(asked.prompt, asked)
    return list(turns.values())
