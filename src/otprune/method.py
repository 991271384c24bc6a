"""What selectors, mergers and layer pruners have in common."""

from dataclasses import Field
from typing import Any, ClassVar


class Method:
    """A way of working with fewer visual tokens: a frozen dataclass whose fields are its settings.

    Class attributes:
        needs: names of the `Signals` fields that the method cannot work without. A property where
            they depend on the settings.
        presets: named settings, for `make_pruner(name, preset=...)`.
    """

    __slots__ = ()
    # Set by the dataclass decorator on every subclass; declared for type checkers.
    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]
    needs: ClassVar[frozenset[str]] = frozenset()
    presets: ClassVar[dict[str, dict[str, Any]]] = {}
