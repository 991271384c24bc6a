"""The options of a document: the answers among which a question asks to choose."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Options:
    """The options of one document.

    Attributes:
        texts: what a model may write for each option; spellings of one option are summed.
        right: index of the right one.
    """

    texts: tuple[tuple[str, ...], ...]
    right: int

    @property
    def names(self) -> tuple[str, ...]:
        """The first spelling of each option."""
        return tuple(spellings[0] for spellings in self.texts)


def lettered(letters: Sequence[str], answer: object) -> Options | None:
    """Return options that are letters; None for fewer than two, or an answer that is none of them.

    Args:
        letters: of the options, as a prompt lists them.
        answer: the right letter.
    """
    each = list(letters)
    if len(each) < 2 or not isinstance(answer, str) or answer not in each:
        return None
    return Options(tuple((one,) for one in each), each.index(answer))


def first_letters(number: int) -> str:
    """Return the letters of a number of options: A, B, C, ..."""
    return "".join(chr(ord("A") + one) for one in range(number))


def yes_or_no(document: Mapping[str, Any]) -> Options | None:
    """Return the options "Yes" and "No", each in small letters too.

    None where the column ``answer`` has neither.
    """
    answer = str(document["answer"]).strip().lower()
    if answer not in ("yes", "no"):
        return None
    return Options((("Yes", "yes"), ("No", "no")), ("yes", "no").index(answer))
