"""Writes the figures of docs/reliability.md from results/reliability: ``python -m attack.page``."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reliability.md"
FIGURES = ROOT / "results" / "reliability"

BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"
"""Between these lines of the page stands what `figures` returns."""

KILLS = {
    "journal": "appending answers to a journal",
    "engine": "answering embedded questions",
    "scoring": "scoring captions, with Java",
    "results": "`run` and `sweep` writing results",
}
"""Parts that kill, and what is killed."""


def read(folder: Path = FIGURES) -> dict[str, dict[str, Any]]:
    """Return what each part has found, by its name."""
    return {file.stem: json.loads(file.read_text()) for file in sorted(folder.glob("*.json"))}


def figures(parts: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the tables of some parts, as Markdown."""
    blocks = [_kills({name: parts[name] for name in KILLS if name in parts})]
    if "inputs" in parts:
        blocks.append(_inputs(parts["inputs"]))
    if "twice" in parts:
        blocks.append(_twice(parts["twice"]))
    blocks.append(_origins(parts))
    return "\n\n".join(blocks)


def _table(heads: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    heads = list(heads)
    lines = [heads, ["---", *["--:"] * (len(heads) - 1)], *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def _number(value: int) -> str:
    return f"{value:,}".replace(",", " ")


def _found(part: Mapping[str, Any]) -> str:
    kinds = Counter(fault["kind"] for fault in part["faults"])
    return ", ".join(f"{number} {kind}" for kind, number in kinds.items()) or "nothing"


def _kills(parts: Mapping[str, Mapping[str, Any]]) -> str:
    rows, total, found = [], Counter[str](), 0
    signals = ("kills", "kills by SIGKILL", "kills by SIGTERM", "kills by SIGINT")
    for name, part in parts.items():
        counts = Counter(part["counts"])
        total.update({key: counts[key] for key in signals})
        found += len(part["faults"])
        checked = [
            f"{_number(counts[key])} {key.removesuffix(' checked').removesuffix(' compared')}"
            for key in ("answers checked", "files checked", "files compared")
            if counts[key]
        ]
        numbers = [_number(counts[key]) for key in signals]
        rows.append([KILLS[name], *numbers, ", ".join(checked), _found(part)])
    rows.append(["all", *(_number(total[key]) for key in signals), "", found or "nothing"])
    heads = ("killed while", "kills", "KILL", "TERM", "INT", "compared one by one", "found")
    return _table(heads, rows)


def _inputs(part: Mapping[str, Any]) -> str:
    counts = part["counts"]
    start = "inputs: "
    rows = [
        [name.removeprefix(start), _number(number)]
        for name, number in counts.items()
        if name.startswith(start)
    ]
    rows.append(["all", _number(counts["inputs"])])
    used = "used, left out or made anew"
    said = (
        f"Of these inputs {counts.get('refused', 0)} were refused in words, {counts.get(used, 0)} "
        "could be used after all: damage that hits what nobody reads, documents that are left out "
        f"with a warning, stored answers that are made anew. Found: {_found(part)}."
    )
    return f"{_table(('bad input at', 'inputs'), rows)}\n\n{said}"


def _twice(part: Mapping[str, Any]) -> str:
    counts = part["counts"]
    return (
        f"The same sweep in two folders: {counts['files compared']} files compared byte by byte, "
        f"{counts['files of measured times']} left out (the manifest, with the times of its runs, "
        f"and files of measured times). Found: {_found(part)}."
    )


def _origins(parts: Mapping[str, Mapping[str, Any]]) -> str:
    rows = []
    for part in parts.values():
        origin = part["origin"]
        minutes = f"{part['seconds'] / 60:.1f}"
        commit = f"`{origin['commit']}`"
        rows.append([f"`{origin['command']}`", part["date"], commit, minutes, origin["hardware"]])
    return _table(("command", "date", "commit", "minutes", "machine"), rows)


def page(text: str, parts: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the page's text with the figures of some parts in their place."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{figures(parts)}\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(), read()))
