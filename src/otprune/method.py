"""What selectors, mergers and layer pruners have in common."""

from collections.abc import Set as AbstractSet
from dataclasses import Field
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

_VERBS = frozenset(
    ("select", "select_batch", "rank", "rank_batch")  # of selectors
    + ("merge",)  # of mergers
    + ("prune", "plan", "start", "observe", "appended")  # of layer pruners
)
"""Functions that methods of one kind have and others have not."""


class Method:
    """A way of working with fewer visual tokens: a frozen dataclass whose fields are its settings.

    Class attributes:
        needs: names of the `Signals` fields that the method cannot work without. A property where
            they depend on the settings.
        needs_without_cls: those that it works with where the vision encoder has no CLS token, as
            its authors do; None where nothing of theirs says how.
        presets: named settings, for `make_pruner(name, preset=...)`.
        by_tile: whether a budget is divided evenly among the tiles of an image.
    """

    __slots__ = ()
    # Set by the dataclass decorator on every subclass; declared for type checkers.
    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]
    needs: ClassVar[frozenset[str]] = frozenset()
    needs_without_cls: ClassVar[frozenset[str] | None] = None
    presets: ClassVar[dict[str, dict[str, Any]]] = {}
    by_tile: ClassVar[bool] = False
    # What a method of this kind is called, and how it is used, for error messages.
    _kind: ClassVar[str] = "method"
    _use: ClassVar[str] = "it must be a Selector, Merger or LayerPruner"

    def wanted(self, gives: AbstractSet[str]) -> frozenset[str]:
        """Return the names of the signals to work with, of a model that gives some.

        Those of ``needs``, all given or not; those of ``needs_without_cls`` where there is no CLS
        attention but the attention that tokens receive.
        """
        without = "received_attention" in gives and "cls_attention" not in gives
        if self.needs_without_cls is None or not without:
            return self.needs
        return self.needs_without_cls

    # Hidden from type checkers, which would take any attribute for given.
    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> NoReturn:
            """Say what the method is where it is called like one of another kind.

            Raises:
                AttributeError: always, so that `hasattr` still tells the kinds apart.
            """
            if name not in _VERBS or hasattr(type(self), name):
                # As without this function, and what a property itself raised.
                return super().__getattribute__(name)
            raise AttributeError(
                f"{type(self).__name__} is a {self._kind} and has no {name}(): {self._use}",
                name=name,
                obj=self,
            )
