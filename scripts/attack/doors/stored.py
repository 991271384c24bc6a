"""What the harness itself has written, damaged or forged: journals and results folders."""

import json
import shutil
from functools import cache
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

from otprune_lmms.journal.lines import decode, encode

from attack.children import Ended, run
from attack.commands import otprune, write_experiment
from attack.doors.case import ODD, PLACES, Case, damaged, odd_value, write_raw

_kept: list[TemporaryDirectory[str]] = []


@cache
def _whole() -> Path:
    """Return a folder with an experiment, its journal and its results; made once."""
    _kept.append(TemporaryDirectory(prefix="whole-"))
    folder = Path(_kept[-1].name)
    write_experiment(folder / "try.yaml", ["pope", "gqa"], limit=3)
    ended = run(otprune(folder, "sweep", "try.yaml", "--quiet", "--images", "1"), deadline=300)
    if ended.status:
        raise RuntimeError(ended.text)
    return folder


def copy_results(folder: Path) -> None:
    """Copy an experiment, its journal and its results into a folder."""
    shutil.copytree(_whole(), folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("tmp"))


def journal_case(draw: Random, folder: Path) -> Case:
    """Return a run on a journal with a damaged or forged file; its results must be as before."""
    copy_results(folder)
    journal = folder / "logs" / "answers"
    part = next(iter(sorted(journal.glob("part-*.jsonl"))))
    lines = part.read_bytes().splitlines(keepends=True)
    number = draw.randrange(len(lines))
    way = draw.randrange(4)
    named = ("part-", "scores", "answers")
    if way == 0:
        what, content = damaged(part.read_bytes(), draw)
        what = f"a part {what}"
        write_raw(part, content)
    elif way == 1:
        # Forged: the checksum is right, the content is not.
        forged = json.loads(decode(lines[number]) or b"{}")
        what = f"line {number} forged: {odd_value(forged, draw)}"
        try:
            lines[number] = encode(forged)
        except (ValueError, TypeError):
            lines[number] = b'{"sha256":"0","says":{}}\n'
        write_raw(part, b"".join(lines))
    elif way == 2:
        file = draw.choice(sorted((journal / "scores").iterdir()))
        what, content = damaged(file.read_bytes(), draw)
        what = f"a score file {what}"
        write_raw(file, content)
    else:
        file = draw.choice(sorted((journal / "scores").iterdir()))
        forged = json.loads(file.read_text())
        what = f"a score file forged: {odd_value(forged, draw)}"
        write_raw(file, json.dumps(forged))

    def check(ended: Ended) -> str:
        if ended.status:
            return ""
        # Pages also say when and by what the answers were made, and some were made anew.
        names = [
            name
            for name in ("records.csv", "samples.parquet", "table.csv")
            if (folder / "outputs/try" / name).read_bytes()
            != (_whole() / "outputs/try" / name).read_bytes()
        ]
        return f"other results: {names}" if names else ""

    command = draw.choice([["run", "try.yaml"], ["sweep", "try.yaml", "--images", "1"]])
    return Case(what, otprune(folder, *command, "--quiet"), named, may_work=True, check=check)


COMMANDS = (
    ["table", "outputs/try"],
    ["plot", "outputs/try"],
    ["report", "outputs/try"],
    ["verify", "outputs/try", "--config-dir", "."],
    ["analyze", "try.yaml", "--tables-only"],
    ["run", "try.yaml", "--quiet"],
)


def results_case(draw: Random, folder: Path) -> Case:
    """Return a command that reads a results folder with one file damaged."""
    copy_results(folder)
    results = folder / "outputs" / "try"
    names = ["manifest.json"] * 4 + ["records.csv", "samples.parquet", "diagnostics.parquet"] * 2
    names += ["intervals.csv", "pairs.csv", "averages.csv", "answer_seconds.parquet"]
    names += ["analysis.csv", "selection_seconds.parquet"]
    name = draw.choice([one for one in names if (results / one).exists()])
    path = results / name
    way = draw.random()
    if way < 0.1:
        path.unlink()
        what = draw.choice(list(PLACES))
        PLACES[what](path)
    elif name == "manifest.json" and way < 0.7:
        content = json.loads(path.read_text())
        what = odd_value(content, draw)
        write_raw(path, json.dumps(content))
    elif name.endswith(".csv") and way < 0.6:
        what, text = _odd_csv(path.read_text(), draw)
        write_raw(path, text)
    else:
        what, content = damaged(path.read_bytes(), draw)
        write_raw(path, content)
    command = draw.choice(COMMANDS)
    named = (name, "outputs/try", what.split(" ")[0])
    return Case(f"{command[0]}: {name}: {what}", otprune(folder, *command), named, may_work=True)


def _odd_csv(text: str, draw: Random) -> tuple[str, str]:
    """Return what was done to a table, and the table after it."""
    lines = [line.split(",") for line in text.splitlines()]
    column = draw.randrange(len(lines[0]))
    if draw.random() < 0.3:
        for line in lines:
            del line[column : column + 1]
        return f"without column {column}", "\n".join(map(",".join, lines))
    row = draw.randrange(len(lines))
    odd = str(draw.choice(ODD)).replace("\n", " ")
    if column < len(lines[row]):
        lines[row][column] = odd
    return f"{odd[:40]!r} in row {row}, column {column}", "\n".join(map(",".join, lines))
