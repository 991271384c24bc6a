"""docs/models.md: which methods prune in which families of transformers, found by running them.

    .venv/bin/python scripts/models_page.py docs/models.md

Every method is given to a tiny random model of every family of `tests/hf/tiny_vlms.py`; a method
counts where a call goes through and keeps what it should. Methods with the same answer in every
family share a column. What was found is also written as data, which `otprune models` reads.
"""

import json
import re
import sys
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import torch
import transformers
import typer

from otprune.hf import pruned
from otprune.hf.families import FAMILIES
from otprune.hf.families.family import DECODERS
from otprune.registry import BUILT_IN, LAYER_PRUNERS, MERGERS

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from hf import tiny_vlms

# Schedules for decoders of four layers; deepstack features take the first two.
SCHEDULES: dict[str, dict[str, Any]] = {
    "dart": {"schedule": "3:0.5"},
    "fastv": {"schedule": "3:0.5"},
    "pyramiddrop": {"schedule": "2:0.5/3:0.25"},
    "sparsevlm": {"schedule": "2:0.5/3:0.25"},
    "tops": {"schedule": "0:0.75/2:0.5/3:0.25"},
    "transprune": {"schedule": "3:0.5", "observe_from": 1, "observe_to": 2},
    "vtw": {"schedule": "3:0"},
}
YES, ORIGINAL = "yes", "original"
VERSIONS = ("5.18.0", "5.23.0", "5.24.0")
"""Of transformers, with which all tests of otprune.hf have passed."""
DATA = Path(__file__).resolve().parents[1] / "src" / "otprune" / "hf" / "capabilities.json"

app = typer.Typer(add_completion=False)


class Words:
    """A stand-in for a tokenizer, for methods that read the question."""

    chat_template = None

    def __call__(self, text: str, add_special_tokens: bool = False) -> Any:
        """Return an id for each word."""
        ids = [10 + len(word) % 400 for word in text.split()]
        return type("Encoding", (), {"input_ids": ids})()

    def decode(self, ids: list[int], skip_special_tokens: bool = False) -> str:
        """Return a word for each id."""
        return " ".join(f"word{number}" for number in ids)


def tried(family: str, method: str) -> str:
    """Return how a method works in a family: "yes", "original", or the reason why not."""
    model, inputs, images = tiny_vlms.tiny(family)
    settings = SCHEDULES.get(method) or {"k": max(1, min(images) // 2)}
    for more in ({}, {"positions": "original"}):
        try:
            with pruned(model, method, tokenizer=Words(), **settings, **more) as trace:
                model(**tiny_vlms.clone(inputs))
        except ValueError as error:  # `UnsupportedModelError`, or what a method says of its input
            reason = str(error)
            if more or "positions='original'" not in reason:
                return reason.replace(model.config.model_type, "the family")
            continue
        if not any(len(k) < n for kept in trace.kept.values() for k, n in _pairs(kept, images)):
            raise AssertionError(f"{method} kept everything in {family}")
        return ORIGINAL if more else YES
    raise AssertionError("positions='original' was refused for the sake of positions")


def _pairs(kept: Iterable[torch.Tensor], images: list[int]) -> Iterable[tuple[torch.Tensor, int]]:
    return zip(kept, images, strict=True)


def columns(found: Mapping[str, Mapping[str, str]]) -> list[tuple[list[str], list[str]]]:
    """Return methods that have the same answer in every family, and these answers."""
    grouped: dict[tuple[str, ...], list[str]] = {}
    for method, answers in found.items():
        # Which signal is missing is in the notes; here it only counts that some are.
        key = tuple(a if a in (YES, ORIGINAL) else _kind(a) for a in answers.values())
        grouped.setdefault(key, []).append(method)
    return [(methods, list(key)) for key, methods in grouped.items()]


def _kind(reason: str) -> str:
    """Return the reason without the names of method and signals."""
    reason = re.sub(r"^\w+ needs [\w, ]+, which", "it needs signals that", reason)
    reason = re.sub(r", got .*", "", reason)
    if reason.startswith("signals.grid"):
        reason = "it needs the raster of patches, of which the family has none"
    reason = re.sub(r"^\w+ (merges|mixes)", r"it \1", reason)
    return re.sub(r"its decoder is .*?; layer", "its decoder is not supported; layer", reason)


def data(found: Mapping[str, Mapping[str, str]], transformers_version: str) -> dict[str, Any]:
    """Return what was found with its reasons, each once, as JSON can hold it."""
    methods: dict[str, Any] = {}
    for method, answers in found.items():
        one: dict[str, Any] = {"kind": _kind_of(method), YES: [], ORIGINAL: [], "no": {}}
        for family, answer in answers.items():
            if answer in (YES, ORIGINAL):
                one[answer].append(family)
            else:
                one["no"].setdefault(answer, []).append(family)
        methods[method] = one
    families = list(dict.fromkeys(family for answers in found.values() for family in answers))
    return {"transformers": transformers_version, "families": families, "methods": methods}


def found_in(data: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Return what `data` was made of."""
    found = {}
    for method, one in data["methods"].items():
        answers = {family: how for how in (YES, ORIGINAL) for family in one[how]}
        answers |= {family: reason for reason, families in one["no"].items() for family in families}
        found[method] = {family: answers[family] for family in data["families"]}
    return found


def _kind_of(method: str) -> str:
    if method in LAYER_PRUNERS:
        return "layer pruner"
    return "merger" if method in MERGERS else "selector"


def page(data: Mapping[str, Any]) -> str:
    """Return the page."""
    families = data["families"]
    groups = columns(found_in(data))
    reasons: list[str] = []
    for _, answers in groups:
        reasons += [one for one in answers if one not in (YES, ORIGINAL)]
    reasons = list(dict.fromkeys(reasons))
    names = [chr(ord("A") + number) for number in range(len(groups))]
    lines = [
        "# Models",
        "",
        "Which methods prune in which vision-language models of transformers through "
        "`otprune.hf.pruned`. Made by `scripts/models_page.py`, which runs every method in a tiny "
        f"random model of every family (transformers {data['transformers']}); edit the script, "
        "not the page. `otprune models` prints it, `otprune models --family NAME` with the reasons "
        "of each method. That what runs is right is for the tests: with all tokens kept not a bit "
        "changes, pruned answers are those of prompts shortened by hand, and dropping inside the "
        "language model is masking (`tests/hf/test_pruned.py`).",
        "",
        "A family that is not listed is tried by its public functions; if it lacks one, an error "
        "says which. Videos are pruned like images in families that take them; tested are "
        f"{', '.join(tiny_vlms.VIDEOS)}.",
        "",
        f"The tests of `otprune.hf` have passed with transformers {', '.join(VERSIONS)} "
        "(`scripts/test_transformers_versions.sh`; the harness and the `llava` package want 5.23). "
        f"Left out are families in versions in which they do not work: {_left_out()}. Beams and "
        "several answers to a prompt with several images are refused in 5.18, whose `generate` "
        "mixes the images up.",
        "",
    ]
    for name, (methods, _) in zip(names, groups, strict=True):
        lines.append(f"- **{name}**: {', '.join(f'{one} ({_how(one)})' for one in methods)}")
    lines += [
        "",
        f"| family | {' | '.join(names)} |",
        f"|---|{':-:|' * len(names)}",
    ]
    for number, family in enumerate(families):
        cells = [answers[number] for _, answers in groups]
        shown = [
            one if one in (YES, ORIGINAL) else f"no ({reasons.index(one) + 1})" for one in cells
        ]
        lines.append(f"| {family} | {' | '.join(shown)} |")
    lines += [
        "",
        '*original*: with `positions="original"`, which is not the method\'s default.',
        "",
    ]
    lines += [f"{number}. {reason}." for number, reason in enumerate(reasons, 1)]
    lines += [
        "",
        f"Decoders that can be pruned inside: {', '.join(sorted(DECODERS))}. Families with code of "
        f"their own: {', '.join(sorted(FAMILIES))}.",
    ]
    return "\n".join(lines) + "\n"


def _left_out() -> str:
    """Return which families do not work in which versions, and why."""
    said = []
    for name, (first, until, why) in tiny_vlms.UNSUPPORTED.items():
        when = f"before {until}" if first is None else f"from {first}"
        said.append(f"{name} {when} ({why})")
    return "; ".join(said)


def _how(method: str) -> str:
    if method in LAYER_PRUNERS:
        return "layer by layer"
    return "merges" if method in MERGERS else "selects"


def run(families: Iterable[str], methods: Iterable[str]) -> dict[str, dict[str, str]]:
    """Return by method and family how it works."""
    families = list(families)
    with torch.no_grad():
        return {
            method: {family: tried(family, method) for family in families} for method in methods
        }


@app.command()
def main(
    out: Annotated[Path, typer.Argument(help="the page to write")],
    capabilities: Annotated[Path, typer.Option(help="the same as data")] = DATA,
) -> None:
    """Run every method in every family and write the page, and what it says as data."""
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    made = data(run(tiny_vlms.FAMILIES, sorted(BUILT_IN)), version("transformers"))
    capabilities.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
    out.write_text(page(made), encoding="utf-8")


if __name__ == "__main__":
    app()
