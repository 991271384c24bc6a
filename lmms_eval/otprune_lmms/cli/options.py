"""Options that several commands have."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from otprune_lmms.embedded import experiment_file
from otprune_lmms.files import is_folder
from otprune_lmms.limits import LARGEST_BATCH

JOURNAL = Path("logs") / "answers"
"""Where finished answers are kept: found by content, so that all runs may share them."""

RESULTS = Path("outputs")
"""Where results folders are written."""


def path(text: str | Path) -> Path:
    """Return what an option names; "" would be the current folder."""
    if isinstance(text, str) and not text.strip():
        raise typer.BadParameter("it must name a file or folder, got nothing")
    return Path(text)


def experiment(text: str | Path) -> Path:
    """Return the file of an experiment that an argument names, see `experiment_file`."""
    return experiment_file(path(text))


def existing_folder(text: str | Path) -> Path:
    """Return a folder that an option or argument names, and that must be there."""
    named = path(text)
    if not is_folder(named):
        raise typer.BadParameter(f"it must be a folder that is there, got {str(named)!r}")
    return named


Folders = Annotated[
    list[Path],
    typer.Argument(
        parser=existing_folder, metavar="FOLDER", help="results folders of earlier runs"
    ),
]
ConfigDir = Annotated[
    Path | None,
    typer.Option(
        parser=existing_folder,
        metavar="FOLDER",
        help="folder of the experiment's file, if it has own task files",
    ),
]
Configs = Annotated[
    list[Path],
    typer.Argument(
        parser=experiment,
        metavar="CONFIG",
        help="experiment files, as my.yaml, or embedded ones by name, as mini, mini/gamma",
    ),
]
OutputDir = Annotated[
    Path,
    typer.Option(
        parser=path,
        metavar="FOLDER",
        help="folder of the results folders, one for each experiment's name",
    ),
]
Limit = Annotated[
    int | None, typer.Option(min=1, help="documents of each task; for trying things out")
]
BatchSize = Annotated[
    int | None,
    typer.Option(min=1, max=LARGEST_BATCH, help="prompts at once, instead of the experiment's"),
]
JournalDir = Annotated[
    Path,
    typer.Option(
        parser=path, metavar="FOLDER", help="folder of finished answers, of all experiments"
    ),
]
WithoutJava = Annotated[
    bool, typer.Option("--without-java", help="leave caption metrics out where Java is missing")
]
Strict = Annotated[
    bool,
    typer.Option(
        "--strict", help="end at the first document with a broken image; else it is left out"
    ),
]
VisualStore = Annotated[
    Path | None,
    typer.Option(
        "--visual-store",
        parser=path,
        metavar="FOLDER",
        help="folder of visual tokens: later runs on the same model do not encode images again",
    ),
]
VisualStoreGib = Annotated[
    float, typer.Option("--visual-store-gib", min=0.001, help="GiB that this folder may take")
]
Quiet = Annotated[bool, typer.Option("--quiet", help="no progress")]
Calibration = Annotated[
    bool,
    typer.Option(
        "--calibration",
        help="ask about each option of a question too, for calibration and Brier score",
    ),
]
ShardOption = Annotated[
    str | None,
    typer.Option(
        metavar="i/N",
        help="only answer part i of N, counted from 1; tables come from a run without this",
    ),
]
ShardBy = Annotated[
    Literal["documents", "configs"], typer.Option(help="what the parts are made of")
]
Json = Annotated[bool, typer.Option("--json", help="everything as JSON on standard output")]
