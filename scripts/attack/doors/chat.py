"""``python -m llava``: options with impossible values, and questions that do not fit."""

from pathlib import Path
from random import Random

from attack.commands import chat
from attack.doors.case import Case, write_raw
from attack.doors.images import _image
from attack.warm import MINI

OPTIONS: dict[str, tuple[str, ...]] = {
    "--image": ("nothing.png", "", "folder", "file"),
    "--method": ("nobody", "", "otprun", "none"),
    "--keep-ratio": ("9.8", "0", "nan", "x", "-1"),
    "--k": ("0", "-1", "x", "1.5"),
    "--layer": ("-1", "99", "x", "99999999999999999999"),
    "--template": ("nobody", ""),
    "--max-new-tokens": ("0", "-1", "x", "1.5"),
    "--device": ("gpu", "cuda:99", "", "tpu"),
    "--dtype": ("float8", "", "int8"),
    "--nothing": ("1",),
}
"""Impossible values, by option."""

MODELS = ("./nothing", "", "file", "folder", "/nothing/at/all", "\0", "a b", "x" * 300)

QUESTIONS = ("<image> and <image> and <image>", "<image>" * 500, "word " * 200_000)
"""Questions that place other images than are given, or are longer than the model takes."""


def case(draw: Random, folder: Path) -> Case:
    """Return a chat with one impossible thing."""
    write_raw(folder / "file", "no image\n")
    (folder / "folder").mkdir()
    write_raw(folder / "image.png", _image("PNG", draw))
    usual = ["--image", "image.png", "--max-new-tokens", "2", "--device", "cpu"]
    way, may_work = draw.random(), False
    if way < 0.6:
        option = draw.choice(list(OPTIONS))
        value = draw.choice(OPTIONS[option])
        pruned = ["--method", "otprune"] if option in ("--keep-ratio", "--k", "--layer") else []
        budget = ["--keep-ratio", "0.2"] if option == "--layer" else []
        line = [MINI, "What?", *usual, *pruned, *budget, option, value]
        named, what = (
            (option, repr(value), option.lstrip("-").replace("-", "_")),
            f"{option} {value!r}",
        )
    elif way < 0.8:
        model = draw.choice(MODELS)
        line, named, what = (
            [model, "What?", *usual],
            (model or "model", "model"),
            f"model {model!r:.60}",
        )
    else:
        question = draw.choice(QUESTIONS)
        line = [MINI, question, *usual]
        named, what = ("question", "images", "tokens"), f"question {question[:30]!r}"
        may_work = "<image>" not in question  # it is cut, with a warning
    return Case(what, chat(folder, *line), named, may_work)
