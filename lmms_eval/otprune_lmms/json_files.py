"""JSON files that this package has written, as they are found on the disk later."""

import json
from pathlib import Path
from typing import Any, NoReturn

from pydantic import ValidationError

from otprune_lmms.files import read_file


class JsonError(ValueError):
    """A file that is no usable JSON; the message names the file and the fault."""


def read_json(path: Path) -> Any:
    """Return the content of a JSON file.

    Raises:
        JsonError: there is no such file, it cannot be read, is no JSON, or is nested too deeply.
            NaN and infinity are no JSON.
    """
    try:
        return json.loads(read_file(path).decode(), parse_constant=_no_number)
    except OSError as error:
        raise JsonError(f"{path} cannot be read: {error.strerror}") from error
    except RecursionError:
        raise JsonError(f"{path} cannot be read: nested too deeply") from None
    except ValueError as error:
        raise JsonError(f"{path} is no JSON: {error}") from error


def first_fault(error: ValidationError) -> str:
    """Return the first fault of a value that does not fit, with its place: ``answer.text: ...``."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place = ".".join(str(one)[:40] for one in first["loc"])
    return f"{place}: {first['msg']}" if place else first["msg"]


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")
