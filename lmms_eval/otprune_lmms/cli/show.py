"""Tables on a terminal."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from otprune_lmms.reporting.tables import ResultsTable


def show(table: "ResultsTable") -> None:
    """Print a table whole: a terminal that is too narrow gets its columns in several turns."""
    from rich.console import Console

    from otprune_lmms.reporting.tables import terminal

    console, drawn = Console(), terminal(table)
    needed = Console(width=1000).measure(drawn)
    # A file or a pipe has no width, and a number is never cut.
    least = needed.minimum if console.is_terminal else needed.maximum
    console.width = max(console.width, least)
    console.print(drawn)
    for note in table.notes:
        console.print(note, highlight=False, soft_wrap=True, markup=False)
