"""Small suites in the benchmarks' schemas, some of whose documents are broken."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest.mock import patch

import yaml
from PIL import Image

import suites
from helpers import TINY

Row = dict[str, Any]


def stored(content: bytes | None) -> dict[str, Any] | None:
    """An image as a parquet file has it."""
    return None if content is None else {"bytes": content, "path": None}


def jpeg(width: int = 60, height: int = 40) -> bytes:
    """A whole image file."""
    with io.BytesIO() as file:
        Image.effect_noise((width, height), 90).convert("RGB").save(file, "JPEG")
        return file.getvalue()


def png(number: int) -> bytes:
    """The image file of a document."""
    return suites.picture(number)["bytes"]


POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n{ } loop\n%%EOF\n"


def with_a_wrong_checksum() -> bytes:
    """A PNG whose pixels are whole and whose checksum of them is another's."""
    content = bytearray(png(0))
    place = content.index(b"IDAT") + 4
    content[place + int.from_bytes(content[place - 8 : place - 4], "big")] ^= 1
    return bytes(content)


BROKEN: Mapping[str, tuple[bytes | None, str]] = {
    "truncated": (jpeg()[:900], "truncated"),
    "half of a PNG": (png(0)[:-40], "truncated|broken|Truncated"),
    "flipped": (png(0)[:50] + b"\xff\xff\xff" + png(0)[53:], "broken|bad|invalid|checksum"),
    "another kind": (b"no picture at all", "cannot identify image file"),
    "nothing": (b"", "cannot identify image file"),
    "no pixels": (b"P6\n0 4\n255\n", "no pixels|cannot identify|Dimensions|dimensions"),
    "missing": (None, "NoneType"),
    "PostScript": (POSTSCRIPT, "cannot identify image file"),
    "a wrong checksum": (with_a_wrong_checksum(), "broken PNG file"),
}
"""Files that are no images, and what is said of them."""


def rows(task: str, number: int, broken: Mapping[int, bytes | None]) -> list[Row]:
    """Documents of pope or mme, the images of some replaced; the others show the same one."""
    found = [suites.ROWS[task](n) for n in range(number)]
    for n, row in enumerate(found):
        image = stored(broken[n]) if n in broken else suites.picture(0)
        row |= {"image": image, "question": f"{row['question']} ({task} {n})"}
    return found


def suite(folder: Path, tasks: Mapping[str, list[Row]]) -> Path:
    """Write data and task files, answers of two tokens; return the tasks' folder."""
    with patch.object(suites, "rows", lambda task: tasks[task]):
        made = suites.make_suite(folder, list(tasks))
    for file in made.glob("*.yaml"):
        content = yaml.safe_load(file.read_text())
        content["generation_kwargs"] = {"max_new_tokens": 2, "temperature": 0, "do_sample": False}
        file.write_text(yaml.safe_dump(content))
    return made


def experiment(folder: Path, tasks: Mapping[str, list[Row]], **changes: Any) -> Path:
    """Write an experiment on a suite of its own; return its file."""
    suite(folder / "suite", tasks)
    content = {
        "name": "try",
        "title": "A try",
        "suite": "./suite/tasks",
        "models": [{"name": "tiny", "pretrained": str(TINY), "batch_size": 4}],
        "tasks": list(tasks),
        "pruning": {"methods": [], "keep_ratios": [0.05]},
        "java": "optional",
    }
    path = folder / "try.yaml"
    path.write_text(yaml.safe_dump(content | changes))
    return path
