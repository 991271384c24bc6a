"""Task files of a suite's folder: read in bounds, and checked before any data is loaded."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from lmms_eval.utils import load_yaml_config
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from otprune_lmms.documents import BROKEN, reason_of
from otprune_lmms.yaml_files import YamlError, read_yaml

OutputType = Literal["generate_until", "loglikelihood", "multiple_choice"]

OUTPUT_TYPES: tuple[str, ...] = get_args(OutputType)
"""Output types of tasks whose requests a model answers in one round."""

_BUILDERS = ("arrow", "csv", "json", "pandas", "parquet", "text")
"""Values of ``dataset_path`` for data in files."""

_MOST_TOKENS, _MOST_BEAMS = 1 << 17, 128
"""Bounds of generation settings: beyond them a value is a slip, and memory would run out."""

_File = Annotated[str, Field(min_length=1)]
_Files = _File | list[_File]


class _DataKeywords(BaseModel):
    """``dataset_kwargs`` of a task file."""

    model_config = ConfigDict(extra="allow", strict=True)

    data_files: _Files | dict[str, _Files] | None = None


class _Generation(BaseModel):
    """``generation_kwargs`` of a task file; of these the engine makes `Generation`."""

    model_config = ConfigDict(extra="allow", strict=True)

    until: str | list[str] | None = None
    max_new_tokens: Annotated[int, Field(ge=1, le=_MOST_TOKENS)] | None = None
    num_beams: Annotated[int, Field(ge=1, le=_MOST_BEAMS)] | None = None
    temperature: Annotated[FiniteFloat, Field(ge=0)] | None = None
    top_p: Annotated[FiniteFloat, Field(gt=0, le=1)] | None = None


class _TaskFile(BaseModel):
    """The entries of a task file whose type can be wrong; others are lmms-eval's to check."""

    model_config = ConfigDict(extra="allow", strict=True)

    task: Annotated[str, Field(min_length=1)]
    dataset_path: str | None = None
    dataset_name: str | None = None
    dataset_kwargs: _DataKeywords | None = None
    test_split: str | None = None
    validation_split: str | None = None
    output_type: OutputType = "generate_until"
    generation_kwargs: _Generation | None = None
    lmms_eval_specific_kwargs: dict[str, Any] | None = None
    metric_list: list[dict[str, Any]] | None = None
    repeats: Annotated[int, Field(ge=1)] = 1


CODE_ERRORS = (*BROKEN, ImportError, RuntimeError)
"""What the import and the first call of a task's own code may raise."""


def task_entries(task: str, folder: Path) -> dict[str, Any]:
    """Return the entries of a folder's file for a task, its id included.

    Raises:
        ValueError: no such file, or one of the folder's files is no usable task file; the message
            names file and key.
    """
    for file in sorted(folder.glob("*.yaml")):
        if _named(file) == task:
            return _checked(file, _loaded(file))
    raise ValueError(f"no task file for {task} in {folder}")


def files_of(entries: Mapping[str, Any], folder: Path) -> list[Path]:
    """Return the data files that a task's entries name; relative ones start at ``folder``."""
    named = (entries.get("dataset_kwargs") or {}).get("data_files") or []
    many = list(named.values()) if isinstance(named, dict) else [named]
    files = [one for some in many for one in ([some] if isinstance(some, str) else some)]
    return [folder / file for file in files]


def _named(file: Path) -> Any:
    """Return the id of a file's task; what it says of code is not looked at."""
    try:
        content = read_yaml(file, tags=("!function",))
    except OSError as error:
        raise ValueError(f"{file}: {error.strerror or error}") from error
    except YamlError as error:
        raise ValueError(str(error)) from error
    if not isinstance(content, dict):
        raise ValueError(f"{file} must hold keys and values, got {type(content).__name__}")
    return content.get("task")


def _loaded(file: Path) -> dict[str, Any]:
    try:
        return load_yaml_config(str(file), mode="full")
    except CODE_ERRORS as error:
        raise ValueError(f"{file}: {reason_of(error)}") from error


def _checked(file: Path, entries: dict[str, Any]) -> dict[str, Any]:
    try:
        _TaskFile.model_validate(entries)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        # Parts with a hyphen or a bracket are pydantic's names of alternatives.
        parts = [str(part) for part in first["loc"]]
        key = ".".join(part for part in parts if not {*part} & {*"-["})
        given = repr(first["input"])[:100]
        raise ValueError(f"{file}: {key}: {first['msg']}, got {given}") from None
    if entries.get("dataset_path") in _BUILDERS and not files_of(entries, file.parent):
        # `datasets` would search the working folder for files.
        raise ValueError(f"{file}: dataset_kwargs.data_files must name the files of each split")
    return entries
