"""Text for a terminal: it gives no orders there, and it is printed whatever the encoding is."""

import codecs
import re
import sys

_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
"""Control characters other than tab and newline, marks of direction, and halves of characters."""

_ALIKE = {
    **dict.fromkeys("\u2010\u2011\u2013\u2014\u2212\u2500\u2501", "-"),
    **dict.fromkeys("\u2018\u2019", "'"),
    **dict.fromkeys("\u201c\u201d", '"'),
    **dict.fromkeys("\u2502\u2503", "|"),
    "\u2026": "...",
    "\u00d7": "x",
    "\u00b2": "^2",
    "\u2020": "+",
    **dict(zip("αβγε", ("alpha", "beta", "gamma", "epsilon"), strict=True)),
}
"""ASCII for characters that our own texts use."""

_HANDLER = "otprune_lmms.alike"


def printable(text: str) -> str:
    """Return a text with control characters written out (backslash, x1b): a terminal obeys none.

    Tabs and newlines stay. Marks that turn the direction of the text are written out too.
    """
    return _UNSEEN.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def degrade_output() -> None:
    """Let standard output and standard error replace what their encoding lacks.

    A dash becomes ``-``, what has no such likeness becomes ``?``; nothing raises
    ``UnicodeEncodeError`` any more. Files are not concerned: they are UTF-8.
    """
    codecs.register_error(_HANDLER, _alike)
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors=_HANDLER)


def _alike(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    missing = error.object[error.start : error.end]
    return "".join(_ALIKE.get(one, "?") for one in missing), error.end
