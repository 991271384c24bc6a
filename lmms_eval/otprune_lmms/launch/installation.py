"""Check how lmms-eval is installed."""

import importlib.util


def check_installation() -> None:
    """Raise ``RuntimeError`` unless ``lmms_eval`` is an installed package.

    An editable installation is found by an import hook, which comes after the folders of
    ``sys.path``: in our repository's root ``import lmms_eval`` would then find our own folder.
    """
    found = importlib.util.find_spec("lmms_eval")
    if found is None or found.origin is None:
        where = "nowhere" if found is None else ", ".join(found.submodule_search_locations or [])
        raise RuntimeError(
            f"lmms_eval must be installed from its wheel, found {where}: "
            "pip uninstall lmms_eval, then pip install --no-deps lmms_eval==0.7.3 (not -e)"
        )
