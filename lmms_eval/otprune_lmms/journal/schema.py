"""What a line of a journal must say: an answer or the header of a session, checked strictly."""

import json
from typing import Annotated, Any, Literal, NotRequired, cast

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, with_config
from typing_extensions import TypedDict  # typing has one that pydantic can use from Python 3.12 on

from otprune_lmms.json_files import first_fault

FORMAT = 2
"""Version of the lines; a folder with lines of another version is an error."""

_STRICT = ConfigDict(strict=True, allow_inf_nan=False)
_OPEN = ConfigDict(strict=True, allow_inf_nan=False, extra="allow")

Format = Annotated[int, Field(ge=FORMAT, le=FORMAT)]
"""The format's number: an int, where a literal would also accept 2.0."""

Count = Annotated[int, Field(ge=0, le=2**53)]
"""A number that every program which reads JSON takes as it is."""


@with_config(_STRICT)
class AnswerContent(TypedDict):
    """A `Record`, as JSON has it. Further keys, of a later version, are dropped."""

    config: str
    request: str
    settings: dict[str, str | int | float | bool | None]
    task: str
    split: str
    doc_id: Count
    index: Count
    kind: Literal["generate", "loglikelihood"]
    text: str | None
    loss: float | None
    greedy: bool | None
    kept: list[Count]
    candidates: list[Count]
    new_tokens: Count
    seconds: dict[str, float]
    truncated: NotRequired[Count]
    unfinished: NotRequired[bool | None]


@with_config(_OPEN)
class ProcessContent(TypedDict):
    """A process that writes: ``begun`` in seconds since 1970."""

    host: str
    pid: int
    begun: float


@with_config(_OPEN)
class SessionContent(TypedDict):
    """The header of a run; further keys are kept as they are."""

    experiment: NotRequired[str]
    source: NotRequired[str]
    models: NotRequired[dict[str, str]]
    process: NotRequired[ProcessContent]


@with_config(_STRICT)
class AnswerLine(TypedDict):
    """A line with an answer."""

    kind: Literal["answer"]
    format: Format
    answer: AnswerContent


@with_config(_STRICT)
class SessionLine(TypedDict):
    """A line with the header of a session."""

    kind: Literal["session"]
    format: Format
    session: SessionContent


Line = AnswerLine | SessionLine

# Their core validators: `TypeAdapter`'s own methods take longer than the validation of a line.
_ANSWER = TypeAdapter(AnswerLine).validator
_SESSION = TypeAdapter(SessionLine).validator


class LineError(ValueError):
    """Content that is no answer and no session; the message says what is wrong with it."""


class OtherFormatError(ValueError):
    """Content of another format.

    Attributes:
        found: the format's number.
    """

    def __init__(self, found: int) -> None:
        super().__init__(f"of format {found}")
        self.found = found


def parse(content: bytes) -> Line:
    """Return what a line says.

    Raises:
        LineError: it is no answer and no session of this format.
        OtherFormatError: it is one of another format, whose digests differ from this one's.
    """
    try:
        line: Line = _ANSWER.validate_json(content)
    except ValidationError:
        # Sessions, half surrogates in a text (which this reader of JSON refuses), all faults.
        line = _checked(_read(content))
    if line["kind"] == "answer":
        _check_value(line["answer"])
    return line


def _read(content: bytes) -> Any:
    try:
        return json.loads(content.decode())
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise LineError(f"no JSON: {reason}") from None


def _checked(content: Any) -> Line:
    kind = content.get("kind") if isinstance(content, dict) else None
    if kind not in ("answer", "session"):
        raise LineError("neither an answer nor a session")
    number = content.get("format")
    if type(number) is int and number != FORMAT:
        raise OtherFormatError(number)
    try:
        validator = _ANSWER if kind == "answer" else _SESSION
        return cast(Line, validator.validate_python(content))
    except ValidationError as error:
        raise LineError(first_fault(error)) from None
    except RecursionError:
        raise LineError("nested too deeply") from None


def _check_value(answer: AnswerContent) -> None:
    """Raise `LineError` unless an answer has the values of its kind, and no others."""
    text, loss, greedy = answer["text"], answer["loss"], answer["greedy"]
    if answer["kind"] == "generate":
        if text is None or loss is not None or greedy is not None:
            raise LineError("a generated answer must have a text, and no loss and greedy")
    elif text is not None or loss is None or greedy is None:
        raise LineError("a loglikelihood must have loss and greedy, and no text")
