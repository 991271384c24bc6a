"""Settings that are read from JSON are held against a schema; a refusal is one sentence.

Values are strict: a number as text, a boolean as a number, NaN and infinity are refused. Fields
that a schema does not have are not read. Null means that a field is not given.
"""

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from llava.checkpoint.errors import CheckpointError

_SHOWN = 80
"""Characters of a refused value that a message shows."""


class Settings(BaseModel):
    """Fields of one JSON file or of an object in one."""

    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False)


AnySettings = TypeVar("AnySettings", bound=Settings)


def checked(kind: type[AnySettings], content: Mapping[str, Any], where: str) -> AnySettings:
    """Return the settings of an object that was read from JSON.

    Args:
        kind: the schema.
        content: the object.
        where: what the message calls it: the file, and the key in it.

    Raises:
        CheckpointError: a field is missing, or has a value of another kind or beyond its bounds;
            the message names file, key, rule and value.
    """
    given = {key: value for key, value in content.items() if value is not None}
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        raise CheckpointError(_sentence(error, where)) from None


def _sentence(error: ValidationError, where: str) -> str:
    found = error.errors(include_url=False)
    missing = [str(one["loc"][0]) for one in found if one["type"] == "missing"]
    if missing:
        return f"{where} lacks {', '.join(missing)}"
    first = found[0]
    rule = first["msg"].removeprefix("Value error, ")
    rule = rule.replace("Input should be", "must be").replace("Input should", "must")
    # A union has one error for each of its kinds, and names the kind behind the key.
    key = ".".join(str(part) for part in first["loc"] if not _kind_of_union(part))
    if not key:
        return f"{where}: {rule}"
    shown = repr(first["input"])
    shown = shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}..."
    return f"{where}: {key} {rule}, got {shown}"


def _kind_of_union(part: str | int) -> bool:
    kinds = ("int", "str", "bool", "constrained-int", "constrained-str")
    return isinstance(part, str) and (part in kinds or "[" in part)
