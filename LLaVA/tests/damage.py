"""Damage to files: seeded mutations of bytes, and of values in JSON."""

import json
import random
from collections.abc import Callable
from pathlib import Path

ODD = (
    *(None, True, False, -1, 0, 1, 3, 10**7, 2**63, 10**30, 0.5, -1e308),
    *(float("nan"), float("inf"), "", "text", "../x", "/etc/passwd", "\0", "\ud800", "x" * 5000),
    *([], [1], [[1]], [None], {}, {"a": 1}, {"type": "linear"}, ["x"] * 100),
)
"""Values that a field may be given in place of its own."""


def damaged(content: bytes, is_json: bool, chance: random.Random) -> tuple[str, bytes]:
    """The name of a mutation, and the content after it."""
    if is_json and chance.random() < 0.7:
        return _odd_value(content, chance)
    kind = chance.choice([_flip, _cut, _drop, _insert, _zero, _noise, _twice, _swap])
    return kind.__name__[1:], kind(content, chance)


def _odd_value(content: bytes, chance: random.Random) -> tuple[str, bytes]:
    found = json.loads(content)
    places = list(_places(found))
    owner, key = chance.choice(places)
    way = chance.randrange(4)
    odd = chance.choice(ODD)
    if way == 0:
        del owner[key]
        return f"without {key}", json.dumps(found).encode()
    if way == 1 and isinstance(owner, dict):
        owner[str(odd)[:40]] = owner.pop(key)
        return f"{key} called {str(odd)[:40]!r}", json.dumps(found).encode()
    owner[key] = odd
    return f"{key} = {odd!r:.40}", json.dumps(found).encode()


def _places(found):
    pairs = found.items() if isinstance(found, dict) else enumerate(found)
    for key, value in list(pairs):
        yield found, key
        if isinstance(value, dict | list):
            yield from _places(value)


def _span(content: bytes, chance: random.Random) -> tuple[int, int]:
    # Half of the spans are near an end, where formats keep what describes the rest.
    size, length = len(content), chance.choice([1, 2, 8, 64, 1000])
    start = chance.randrange(max(size, 1))
    if chance.random() < 0.5:
        start = chance.choice([min(start, 300), max(0, size - 1 - chance.randrange(2000))])
    return start, min(size, start + length)


def _flip(content: bytes, chance: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(chance.choice([1, 1, 3, 20])):
        first, _ = _span(content, chance)
        changed[first] ^= 1 << chance.randrange(8)
    return bytes(changed)


def _cut(content: bytes, chance: random.Random) -> bytes:
    return content[: _span(content, chance)[0]]


def _drop(content: bytes, chance: random.Random) -> bytes:
    first, last = _span(content, chance)
    return content[:first] + content[last:]


def _insert(content: bytes, chance: random.Random) -> bytes:
    first, last = _span(content, chance)
    return content[:first] + chance.randbytes(last - first) + content[first:]


def _zero(content: bytes, chance: random.Random) -> bytes:
    first, last = _span(content, chance)
    return content[:first] + bytes(last - first) + content[last:]


def _noise(content: bytes, chance: random.Random) -> bytes:
    first, last = _span(content, chance)
    return content[:first] + chance.randbytes(last - first) + content[last:]


def _twice(content: bytes, chance: random.Random) -> bytes:
    first, last = _span(content, chance)
    return content[:last] + content[first:last] + content[last:]


def _swap(content: bytes, chance: random.Random) -> bytes:
    first, last = _span(content, chance)
    other, end = _span(content, chance)
    return content[:first] + content[other:end] + content[last:]


def attack(
    files: list[Path], rounds: int, seed: int, use: Callable[[], None], allowed: tuple
) -> tuple[dict[str, int], list[str]]:
    """Damage one file at a time and use what it belongs to.

    Returns how often what came of it, and each mutation after which something else was raised than
    ``allowed``. Files are whole again afterwards.
    """
    chance = random.Random(seed)
    counts: dict[str, int] = {}
    escaped: list[str] = []
    for number in range(rounds):
        path = files[number % len(files)]
        whole = path.read_bytes()
        kind, content = damaged(whole, path.suffix == ".json", chance)
        # Not in place: weights of an earlier round may still be mapped.
        path.unlink()
        path.write_bytes(content)
        try:
            use()
            outcome = "used"
        except allowed as error:
            outcome = type(error).__name__
        except BaseException as error:  # noqa: BLE001 - what escapes is what is looked for
            outcome = "escaped"
            escaped.append(f"{number} {path.name}: {kind}: {type(error).__name__}: {error!s:.300}")
        counts[outcome] = counts.get(outcome, 0) + 1
        path.unlink()
        path.write_bytes(whole)
    return counts, escaped
