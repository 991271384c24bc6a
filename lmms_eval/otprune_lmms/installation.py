"""Check how lmms-eval is installed."""

import importlib.util

WHEEL = "pip install --no-deps lmms_eval==0.7.3"
"""Installs lmms-eval, without the torchvision that it asks for: no CPU build of torch loads it."""

MISSING = f"this needs lmms-eval, which is not installed: {WHEEL}"


def check_installation() -> None:
    """Raise ``RuntimeError`` unless ``lmms_eval`` is an installed package.

    An editable installation is found by an import hook, which comes after the folders of
    ``sys.path``: in our repository's root ``import lmms_eval`` would then find our own folder.
    """
    found = importlib.util.find_spec("lmms_eval")
    if found is None:
        raise RuntimeError(MISSING)
    if found.origin is None:
        where = ", ".join(found.submodule_search_locations or [])
        raise RuntimeError(
            f"lmms_eval must be installed from its wheel, found {where}: "
            f"pip uninstall lmms_eval, then {WHEEL} (not -e)"
        )
