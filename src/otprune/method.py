"""What selectors, mergers and layer pruners have in common."""

from typing import Any, ClassVar


class Method:
    """A way of getting along with fewer visual tokens; a frozen dataclass of its settings.

    Class attributes:
        needs: names of the `Signals` fields without which the method cannot work; where they depend
            on its settings, a property.
        presets: named settings, for `make_pruner(name, preset=...)`.
    """

    __slots__ = ()
    needs: ClassVar[frozenset[str]] = frozenset()
    presets: ClassVar[dict[str, dict[str, Any]]] = {}
