"""Questions about a scene that have one right answer, by family.

A family is a function (scene, rng) -> `Question`, or None where the scene gives no such question.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from drawings import COLOURS, GROUNDS, KINDS, THINGS
from scenes import UNSEEN, Scene, Thing

NUMBERS = ("0", "1", "2", "3", "4", "5", "6")
CORNERS = ("top left", "top right", "bottom left", "bottom right")
FACTS = {
    "house": "people live in", "tree": "has a trunk", "car": "drives on roads",
    "boat": "sails on the sea", "fish": "can swim under water", "flower": "has petals",
    "cup": "you can drink from", "key": "opens a lock",
}  # fmt: skip
MARGIN = 0.08
"""Two places count as different when they are at least this share of the image's side apart."""


@dataclass(frozen=True)
class Question:
    """A question, its answer, and what else could have been the answer."""

    family: str
    text: str
    answer: str
    choices: tuple[str, ...]


Family = Callable[[Scene, np.random.Generator], Question | None]
YES_NO = ("Yes", "No")


def plural(kind: str) -> str:
    """Return the plural of a kind."""
    return {"cross": "crosses", "fish": "fish"}.get(kind, kind + "s")


_Item = TypeVar("_Item")


def _one(items: Sequence[_Item], rng: np.random.Generator) -> _Item:
    return items[int(rng.integers(len(items)))]


def _thing(scene: Scene, rng: np.random.Generator) -> Thing | None:
    return scene.alone[rng.integers(len(scene.alone))] if scene.alone else None


def _yes(truth: bool) -> str:
    return "Yes" if truth else "No"


def absent_name(scene: Scene, rng: np.random.Generator) -> str:
    """Return a colour and kind that are not in the scene together, hard ones more often.

    Half of them pair a kind and a colour that are both there, on different objects.
    """
    here = {thing.name for thing in scene.things}
    kinds = sorted({thing.kind for thing in scene.things})
    colours = sorted({thing.colour for thing in scene.things})
    while True:
        draw = rng.random()
        kind = str(_one(kinds if draw < 0.75 else list(KINDS), rng))
        colour = str(_one(colours if draw < 0.5 or draw >= 0.85 else list(COLOURS), rng))
        if draw < 0.5 and len(kinds) * len(colours) <= len(here):
            kind = str(_one(list(KINDS), rng))
        if f"{colour} {kind}" not in here and (colour, kind) not in UNSEEN:
            return f"{colour} {kind}"


def article(name: str) -> str:
    """Return a name with "a" or "an" in front."""
    return f"an {name}" if name[0] in "aeiou" else f"a {name}"


def exists(scene: Scene, rng: np.random.Generator) -> Question:
    """Colour and kind together: nothing but the object itself tells."""
    there = rng.random() < 0.5
    name = str(_one([t.name for t in scene.things], rng)) if there else absent_name(scene, rng)
    return Question("exists", f"Is there {article(name)} in the image?", _yes(there), YES_NO)


def exists_kind(scene: Scene, rng: np.random.Generator) -> Question:
    """A kind, of any colour."""
    here = sorted({thing.kind for thing in scene.things})
    there = rng.random() < 0.5
    kind = _one(here if there else [k for k in KINDS if k not in here], rng)
    return Question("exists", f"Is there {article(str(kind))} in the image?", _yes(there), YES_NO)


def exists_fact(scene: Scene, rng: np.random.Generator) -> Question:
    """A kind, by what is known of it."""
    here = [kind for kind in THINGS if scene.of(kind=kind)]
    there = bool(here) and rng.random() < 0.5
    kind = str(_one(here if there else [k for k in THINGS if k not in here], rng))
    text = f"Is there an object that {FACTS[kind]}?"
    return Question("knowledge", text, _yes(there), YES_NO)


def colour(scene: Scene, rng: np.random.Generator) -> Question | None:
    """The colour of the only object of its kind."""
    single = [thing for thing in scene.things if len(scene.of(kind=thing.kind)) == 1]
    if not single:
        return None
    thing = _one(single, rng)
    text = f"What color is the {thing.kind}?"
    return Question("colour", text, thing.colour, tuple(COLOURS))


def colour_fact(scene: Scene, rng: np.random.Generator) -> Question | None:
    """The colour of an object that is described by what is known of it."""
    single = [t for t in scene.things if t.kind in FACTS and len(scene.of(kind=t.kind)) == 1]
    if not single:
        return None
    thing = _one(single, rng)
    text = f"What color is the object that {FACTS[thing.kind]}?"
    return Question("knowledge", text, thing.colour, tuple(COLOURS))


def kind(scene: Scene, rng: np.random.Generator) -> Question | None:
    """The kind of the only object of its colour."""
    single = [thing for thing in scene.things if len(scene.of(colour=thing.colour)) == 1]
    if not single:
        return None
    thing = _one(single, rng)
    return Question("shape", f"What is the {thing.colour} object?", thing.kind, KINDS)


def count(scene: Scene, rng: np.random.Generator) -> Question:
    """How many of a kind, of a colour, or in all."""
    draw = rng.random()
    if draw < 0.3:
        text, number = "How many objects are in the image?", len(scene.things)
    elif draw < 0.75:
        # Drawn from the objects, not from their kinds: otherwise most answers would be 1.
        here = [thing.kind for thing in scene.things]
        of = str(_one(here if rng.random() < 0.85 else list(KINDS), rng))
        text = f"How many {plural(of)} are in the image?"
        number = len(scene.of(kind=of))
    else:
        here = [thing.colour for thing in scene.things]
        of = str(_one(here if rng.random() < 0.85 else list(COLOURS), rng))
        text, number = f"How many {of} objects are in the image?", len(scene.of(colour=of))
    return Question("count", text, str(number), NUMBERS)


def where(scene: Scene, rng: np.random.Generator) -> Question | None:
    """The quarter of the image that an object is in."""
    clear = [
        thing for thing in scene.alone
        if min(abs(thing.x - 0.5), abs(thing.y - 0.5)) > MARGIN / 2
    ]  # fmt: skip
    if not clear:
        return None
    thing = _one(clear, rng)
    return Question("position", f"Where is the {thing.name}?", thing.place, CORNERS)


def side(scene: Scene, rng: np.random.Generator) -> Question | None:
    """The half of the image that an object is in; in training only.

    Of "top left" a model learns the first word long before the second, which it must look the
    object up for once more. When left and right are asked for alone, they are learnt at that
    place, too.
    """
    clear = [thing for thing in scene.alone if abs(thing.x - 0.5) > MARGIN / 2]
    if not clear:
        return None
    thing = _one(clear, rng)
    text = f"Is the {thing.name} to the left or to the right?"
    return Question("side", text, "left" if thing.x < 0.5 else "right", ("left", "right"))


def pair_apart(scene: Scene, rng: np.random.Generator, axis: str) -> tuple[Thing, Thing] | None:
    """Return two objects in random order that are clearly apart along x or y."""
    pairs = [
        (a, b) for a in scene.alone for b in scene.alone
        if a != b and abs(getattr(a, axis) - getattr(b, axis)) > MARGIN
    ]  # fmt: skip
    return _one(pairs, rng) if pairs else None


def relation(scene: Scene, rng: np.random.Generator) -> Question | None:
    """On which side of another object one is."""
    sides = rng.random() < 0.5
    pair = pair_apart(scene, rng, "x" if sides else "y")
    if pair is None:
        return None
    a, b = pair
    if sides:
        text = f"Is the {a.name} to the left or to the right of the {b.name}?"
        return Question("relation", text, "left" if a.x < b.x else "right", ("left", "right"))
    text = f"Is the {a.name} above or below the {b.name}?"
    return Question("relation", text, "above" if a.y < b.y else "below", ("above", "below"))


def relation_yes(scene: Scene, rng: np.random.Generator) -> Question | None:
    """Whether one object is left or right of another."""
    pair = pair_apart(scene, rng, "x")
    if pair is None:
        return None
    a, b = pair
    side = str(_one(["left", "right"], rng))
    truth = (a.x < b.x) == (side == "left")
    text = f"Is the {a.name} on the {side} side of the {b.name}?"
    return Question("relation", text, _yes(truth), YES_NO)


def size(scene: Scene, rng: np.random.Generator) -> Question | None:
    """Small or large."""
    thing = _thing(scene, rng)
    if thing is None:
        return None
    text = f"Is the {thing.name} small or large?"
    return Question("size", text, thing.size, ("small", "large"))


def ground(scene: Scene, rng: np.random.Generator) -> Question:
    """What the objects are on."""
    return Question("ground", "What is in the background?", scene.ground, tuple(GROUNDS))


def ground_yes(scene: Scene, rng: np.random.Generator) -> Question:
    """Whether the objects are on a certain ground."""
    there = rng.random() < 0.5
    others = [name for name in GROUNDS if name != scene.ground]
    name = scene.ground if there else str(_one(others, rng))
    return Question("ground", f"Is the background made of {name}?", _yes(there), YES_NO)


def count_yes(scene: Scene, rng: np.random.Generator) -> Question:
    """Whether a number is right."""
    of = str(_one(sorted({thing.kind for thing in scene.things}), rng))
    number = len(scene.of(kind=of))
    there = rng.random() < 0.5
    said = number if there else max(1, number + int(_one([-1, 1], rng)))
    said = said if there or said != number else number + 1
    noun = of if said == 1 else plural(of)
    text = f"Is there a total of {said} {noun} in the image?"
    return Question("count", text, _yes(there), YES_NO)


def colour_yes(scene: Scene, rng: np.random.Generator) -> Question | None:
    """Whether the only object of its kind has a colour."""
    asked = colour(scene, rng)
    if asked is None:
        return None
    there = rng.random() < 0.5
    others = [name for name in COLOURS if name != asked.answer]
    said = asked.answer if there else str(_one(others, rng))
    text = asked.text.replace("What color is the ", "Is the ").replace("?", f" {said}?")
    return Question("colour", text, _yes(there), YES_NO)


def more_yes(scene: Scene, rng: np.random.Generator) -> Question | None:
    """Whether there are more of one kind than of another."""
    counts = {thing.kind: len(scene.of(kind=thing.kind)) for thing in scene.things}
    pairs = [(a, b) for a in counts for b in counts if counts[a] != counts[b]]
    if not pairs:
        return None
    a, b = _one(pairs, rng)
    text = f"Are there more {plural(a)} than {plural(b)} in the image?"
    return Question("count", text, _yes(counts[a] > counts[b]), YES_NO)


FAMILIES: dict[str, Family] = {
    "exists": exists, "exists_kind": exists_kind, "exists_fact": exists_fact,
    "colour": colour, "colour_fact": colour_fact, "colour_yes": colour_yes,
    "kind": kind, "count": count, "count_yes": count_yes, "more_yes": more_yes,
    "where": where, "side": side, "relation": relation, "relation_yes": relation_yes,
    "size": size, "ground": ground, "ground_yes": ground_yes,
}  # fmt: skip
