"""Tables on a terminal."""

from typing import Any

from rich.console import Console


def show(table: Any) -> None:
    """Print a table whole: a terminal that is too narrow may fold its lines, not cut numbers."""
    from otprune_lmms.experiments.tables import terminal

    console, drawn = Console(), terminal(table)
    console.width = max(console.width, Console(width=1000).measure(drawn).maximum)
    console.print(drawn)
    for note in table.notes:
        console.print(note, highlight=False, soft_wrap=True)
