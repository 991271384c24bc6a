"""Texts of models and files on a terminal: it gives no orders there."""

import logging
import re

UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
"""Control characters other than tab and newline, marks of direction, and halves of characters."""


def printable(text: str) -> str:
    """Return a text with control characters written out (backslash, x1b): a terminal obeys none."""
    return UNSEEN.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


class PrintableFormatter(logging.Formatter):
    """Writes control characters of log messages out: these may quote files."""

    def format(self, record: logging.LogRecord) -> str:
        """Return a record as a line."""
        return printable(super().format(record))
