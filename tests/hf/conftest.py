import pytest

from hf.tiny_vlms import FAMILIES, unsupported


def pytest_collection_modifyitems(items):
    """Leave out families that do not work in the installed version of transformers."""
    for item in items:
        named = getattr(item, "callspec", None)
        values = named.params.values() if named else ()
        for name in (one for one in values if isinstance(one, str) and one in FAMILIES):
            if why := unsupported(name):
                item.add_marker(pytest.mark.skip(reason=why))
