r"""Texts of an experiment, a model or a data set in pages, tables and figures: shown, never obeyed.

Every writer escapes with these functions. In all of them control characters and marks that turn the
direction of text are written out (``\x1b``, ``\u202e``), as on a terminal. CSV and JSON files
hold texts as they are: they are read again by name.
"""

import re
from html import escape as _html_escape

from otprune_lmms.terminal_text import printable

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    # In the old font encoding these three are other characters.
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",
    "`": r"\textasciigrave{}",
    "–": "--",
    "—": "---",
    "±": r"$\pm$",
    "×": r"$\times$",
    "²": r"$^2$",
    "α": r"$\alpha$",
    "β": r"$\beta$",
    "γ": r"$\gamma$",
    "ε": r"$\epsilon$",
    "↓": r"$\downarrow$",
    "†": r"$^{\dagger}$",
    "…": r"\dots{}",
}

_BLOCK = re.compile(r"^(?:([#+=-])(?=[\s#=-]|$)|(\d+)([.)])(?=\s|$))")
"""What begins a heading, a list or a line below a heading where it begins a line of Markdown."""


def flat(text: object) -> str:
    """Return a text as one line: runs of blanks are one blank, control characters written out."""
    return printable(" ".join(str(text).split()))


def markdown(text: object) -> str:
    """Return text that Markdown shows as it is, at the beginning of a line and in a table too."""
    plain = re.sub(r"([\\`*<>\[\]|~$])", r"\\\1", flat(text)).replace("&", "&amp;")
    # Inside a word an underscore is one.
    plain = re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\\_", plain)
    return _BLOCK.sub(r"\2\\\1\3", plain)


def markdown_code(text: object) -> str:
    """Return text as code, whatever back-ticks it has; not for a table, whose bars it leaves."""
    plain = flat(text)
    longest = max((len(run) for run in re.findall(r"`+", plain)), default=0)
    fence = "`" * (longest + 1)
    return f"{fence} {plain} {fence}" if longest else f"{fence}{plain}{fence}"


def shown(value: object) -> object:
    """Return a value of a template: control characters of a plain text are written out.

    What is no text or is markup already stays. To be given to Jinja as ``finalize``.
    """
    return printable(value) if type(value) is str else value


def html(text: object) -> str:
    """Return text for HTML: of an element, or of an attribute in quotes."""
    return _html_escape(printable(str(text)))


def latex(text: object) -> str:
    """Return text that LaTeX sets as it is, in one line."""
    return "".join(_SPECIAL.get(character, character) for character in flat(text))
