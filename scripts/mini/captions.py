"""Captions of a scene: one sentence that says what is in it."""

from questions import article, plural
from scenes import Scene

PHRASES = (
    "{what} on {ground}.",
    "{what} in front of a background of {ground}.",
    "There {verb} {what} on {ground}.",
    "A picture of {what} on {ground}.",
    "An image with {what} and {ground} behind.",
)
WORDS = ("zero", "one", "two", "three", "four", "five", "six")


def _groups(scene: Scene) -> list[str]:
    """Return the objects in words, equal ones together, the largest first."""
    names = [thing.name for thing in sorted(scene.things, key=lambda t: -t.radius)]
    groups = []
    for name in dict.fromkeys(names):
        number = names.count(name)
        colour, kind = name.split()
        one = number == 1
        groups.append(article(name) if one else f"{WORDS[number]} {colour} {plural(kind)}")
    return groups


def caption(scene: Scene, phrase: int) -> str:
    """Return the caption with one of the `PHRASES`; it names at most three groups of objects."""
    groups = _groups(scene)
    shown = groups[:3]
    what = shown[0] if len(shown) == 1 else ", ".join(shown[:-1]) + " and " + shown[-1]
    one = shown[0].startswith(("a ", "an "))
    text = PHRASES[phrase].format(what=what, ground=scene.ground, verb="is" if one else "are")
    return text[0].upper() + text[1:]


def captions(scene: Scene) -> list[str]:
    """Return five captions, one of each phrase."""
    return [caption(scene, phrase) for phrase in range(len(PHRASES))]
