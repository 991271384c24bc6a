"""What comes with the package, known by name from any folder: experiments, tasks, checkpoints."""

from pathlib import Path

from otprune_lmms.files import is_file, is_folder

EXPERIMENTS = Path(__file__).parent / "configs"
"""Their files."""

MINI_TASKS = Path(__file__).parent / "tasks" / "mini"
"""Task files of the embedded data."""

CHECKPOINTS = Path(__file__).parent / "checkpoints"
"""Folders of checkpoints in transformers' layout."""


def experiment_names() -> list[str]:
    """Return the names: paths of the files without their ending, as ``mini/gamma``."""
    files = EXPERIMENTS.rglob("*.yaml")
    return sorted(str(file.relative_to(EXPERIMENTS).with_suffix("")) for file in files)


def experiment_file(named: str | Path) -> Path:
    """Return the file of an experiment: one of that path, else the embedded one of that name.

    Returns the path itself where there is neither.
    """
    path = Path(named)
    embedded = EXPERIMENTS / f"{path}.yaml"
    return embedded if not is_file(path) and str(path) in experiment_names() else path


def checkpoint_folder(named: str) -> Path | None:
    """Return the folder of a checkpoint: one of that path, else the embedded one of that name.

    Returns None where there is neither: an id of the hub, or a name that the llava package knows.
    """
    path = Path(named).expanduser()
    if is_folder(path):
        return path
    plain = "/" not in named and named not in (".", "..", "")
    return CHECKPOINTS / named if plain and is_folder(CHECKPOINTS / named) else None
