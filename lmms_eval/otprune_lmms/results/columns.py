"""The columns that say which setting a line of a results file is about.

Every file of a results folder that has lines about settings has all of them, filled by
`PruningConfig.columns`: readers select and group by columns and never take a label apart.
"""

SETTING_TYPES: dict[str, str] = {
    "setting": "string",
    "row": "string",
    "name": "string",
    "method": "string",
    "keep_ratio": "double",
    "k": "int64",
    "layer": "int64",
    "match": "string",
    "positions": "string",
    "keep_newlines": "bool",
    "compat": "string",
    "settings": "string",
    "seed": "int64",
}
"""Columns and their types in Arrow's words.

``setting`` is the pruning config's label, ``row`` the label without the seed (seeds share a row of
a table), ``name`` the row without its budget; all three are for people. ``method`` is empty for the
unpruned model. ``keep_ratio`` or ``k`` is the budget, ``match`` what it is about ("kept",
"average", "flops"), all three empty for a schedule as it is. ``layer`` is where it prunes, 0 before
the language model and for methods whose schedule names layers. ``positions`` ("compact" or
"original"), ``keep_newlines`` and ``compat`` as in `PruningConfig`. ``settings`` is a JSON object
of the method's own settings that differ from its defaults, ``seed`` that of a method that draws.
"""

SETTING = tuple(SETTING_TYPES)
"""The columns in their order."""

TEXTS = tuple(name for name, kind in SETTING_TYPES.items() if kind == "string")
"""Those that are text; a file that is read as CSV must be told so."""
