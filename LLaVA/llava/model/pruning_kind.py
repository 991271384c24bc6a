"""The check of what users give as ``pruning``."""

from otprune.pruning import Pruning


def check_kind(pruning: object) -> None:
    """Raise ``TypeError`` for anything but a pruning or None, such as a method's name."""
    if pruning is not None and not isinstance(pruning, Pruning):
        raise TypeError(
            "pruning must be a Pruning, such as make_pruning('otprune', keep_ratio=0.1), or None; "
            f"got {pruning!r:.80}"
        )
