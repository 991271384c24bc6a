"""Runs parts of the attack: ``python -m attack [PART ...] --share 1 --seed 0``."""

import gc
import importlib
import logging
import random
import shutil
import tempfile
import time
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from attack.children import adopt_orphans
from attack.tally import Tally

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

ROOT = Path(__file__).parents[2]


class Part(StrEnum):
    """Parts of the attack, in the order in which they run."""

    JOURNAL = "journal"
    ENGINE = "engine"
    SCORING = "scoring"
    RESULTS = "results"
    INPUTS = "inputs"
    TWICE = "twice"


MODULES = {
    Part.JOURNAL: "journal_kills",
    Part.ENGINE: "engine_kills",
    Part.SCORING: "scoring_kills",
    Part.RESULTS: "results_kills",
    Part.INPUTS: "bad_inputs",
    Part.TWICE: "twice",
}
"""The module of each part; its `attack` is called."""

ROUNDS = {
    Part.JOURNAL: 1500,
    Part.ENGINE: 250,
    Part.SCORING: 120,
    Part.RESULTS: 130,
    Part.INPUTS: 360,
    Part.TWICE: 1,
}
"""Kills, or inputs, of each part in full."""


@app.command()
def main(
    parts: Annotated[list[Part] | None, typer.Argument(help="what to run; default: all")] = None,
    share: Annotated[float, typer.Option(min=0, max=100, help="of the rounds of each part")] = 1,
    seed: Annotated[int, typer.Option(help="of everything that is drawn")] = 0,
    output: Annotated[Path, typer.Option(help="folder of one JSON file for each part")] = ROOT
    / "results"
    / "reliability",
) -> None:
    """Attack the harness; end with status 1 if anything is found.

    Files of what was found are kept in the folder of the temporary files.
    """
    from otprune_lmms.provenance import origin

    adopt_orphans()
    # Journals are opened that are damaged on purpose.
    logging.getLogger("otprune_lmms").setLevel(logging.ERROR)
    kept = Path(tempfile.mkdtemp(prefix="attack-"))
    faults = 0
    for part in parts or list(Part):
        rounds = max(1, round(share * ROUNDS[part]))
        tally = Tally(part, kept)
        module = importlib.import_module(f"attack.{MODULES[part]}")
        gc.collect()
        gc.freeze()  # what is there now is never copied into a child
        command = f"bash scripts/attack.sh {part} --share {share:g} --seed {seed}"
        where = origin(command, "cpu")  # of the code as it is now
        begun = time.strftime("%H:%M:%S")
        print(f"{begun} {part}: {rounds} rounds, seed {seed}", flush=True)
        with tempfile.TemporaryDirectory(prefix="attacked-") as folder:
            module.attack(random.Random(f"{part} {seed}"), rounds, Path(folder), tally)
        date = datetime.now(UTC).date().isoformat()
        tally.write(
            output / f"{part}.json",
            origin=where, date=date, part=part, rounds=rounds, seed=seed,
        )  # fmt: skip
        print(f"{part}: {tally.plain()['counts']}, {len(tally.faults)} faults", flush=True)
        faults += len(tally.faults)
    if faults:
        print(f"{faults} faults; files of some of them in {kept}")
        raise typer.Exit(1)
    shutil.rmtree(kept)


if __name__ == "__main__":
    app()
