"""Pruned subclasses of lmms-eval's chat wrappers, by the wrapper's id; made when asked for."""

from otprune_lmms.stock.classes import pruned_class


def __getattr__(wrapper: str) -> type:
    """Return the class of a wrapper of `WRAPPERS`.

    Raises:
        AttributeError: there is none of this name.
        SettingsError: see `pruned_class`.
    """
    return pruned_class(wrapper, "chat")
