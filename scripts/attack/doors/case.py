"""A bad input, and what must come of it; damage to files."""

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from attack.children import Ended, Work

ODD: tuple[Any, ...] = (
    *(None, True, -1, 0, 3.5, 10**7, 2**63, 10**30, float("nan"), float("inf")),
    *("", "text", "../x", "/etc/passwd", "\0", "x" * 5000, "<script>", "\x1b[31m", "²"),
    *([], [1], [None], [[[]]], {}, {"a": 1}),
)
"""Values that may stand where another kind of value is wanted."""


PLACES: dict[str, Callable[[Path], object]] = {
    "no file": lambda path: None,
    "a folder": lambda path: path.mkdir(),
    "a pipe": os.mkfifo,
    "a link to nowhere": lambda path: path.symlink_to("nowhere"),
    "a link to itself": lambda path: path.symlink_to(path.name),
}
"""Places that hold no file."""


def _nothing_more(_: Ended) -> str:
    return ""


@dataclass(frozen=True)
class Case:
    """A bad input.

    Attributes:
        what: what is bad about it, in words.
        work: uses it.
        named: texts of which at least one must be in the message.
        may_work: whether status 0 is right too: damage may hit what nobody reads, and some inputs
            are left out with a warning.
        check: returns what is wrong about how it ended beyond that; "" for nothing.
    """

    what: str
    work: Work
    named: tuple[str, ...]
    may_work: bool = False
    check: Callable[[Ended], str] = _nothing_more


def write_raw(path: Path, content: bytes | str) -> None:
    """Write a file anew: an earlier one may be a link to something that must stay as it is."""
    path.unlink(missing_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def damaged(content: bytes, draw: Random) -> tuple[str, bytes]:
    """Return a name of a random damage, and the content after it."""
    size = len(content)
    # Half of it is near an end, where formats keep what describes the rest.
    start = draw.randrange(max(size, 1))
    if draw.random() < 0.5:
        start = draw.choice([min(draw.randrange(400), size), max(0, size - draw.randrange(1, 400))])
    stop = min(size, start + draw.choice([1, 8, 64, 1000]))
    kinds: dict[str, Callable[[], bytes]] = {
        "cut off": lambda: content[:start],
        "with a part missing": lambda: content[:start] + content[stop:],
        "with noise": lambda: content[:start] + draw.randbytes(stop - start) + content[stop:],
        "with zeros": lambda: content[:start] + bytes(stop - start) + content[stop:],
        "with a part twice": lambda: content[:stop] + content[start:],
        "empty": lambda: b"",
        "replaced by noise": lambda: draw.randbytes(300),
    }
    kind = draw.choice(list(kinds))
    return kind, kinds[kind]()


def odd_value(content: Any, draw: Random) -> str:
    """Change, remove or rename one value of a JSON content in place; return what was done."""
    places = list(_places(content))
    owner, key = draw.choice(places)
    odd = draw.choice(ODD)
    if isinstance(owner, dict) and draw.random() < 0.2:
        del owner[key]
        return f"without {key}"
    owner[key] = odd
    return f"{key} = {odd!r:.40}"


def _places(found: Any) -> Sequence[tuple[Any, Any]]:
    pairs = found.items() if isinstance(found, dict) else enumerate(found)
    places = []
    for key, value in list(pairs):
        places.append((found, key))
        if isinstance(value, dict | list):
            places += _places(value)
    return places


def odd_json(text: str, draw: Random) -> tuple[str, str]:
    """Return what was done to a JSON text, and the text after it."""
    content = json.loads(text)
    return odd_value(content, draw), json.dumps(content)
