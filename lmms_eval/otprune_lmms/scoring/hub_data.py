"""Revisions of data on the hub: which are wanted, and which were loaded."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import datasets.load

_COMMIT = re.compile(r"[0-9a-f]{40}")


@contextmanager
def data_revisions(wanted: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """In this context data sets of the hub are loaded in the wanted revisions.

    That holds for all that `datasets` loads: tasks' own code loads data, too (images that lie
    apart from the questions).
    A revision that the call itself names stays.

    Args:
        wanted: branch, tag or commit by repository; any for a repository that is not there.

    Yields:
        The commit of each repository that was loaded, filled while the context lasts.
    """
    loaded: dict[str, str] = {}
    make = datasets.load.dataset_module_factory

    def dataset_module_factory(path: str, revision: Any = None, *others: Any, **more: Any) -> Any:
        module = make(path, revision or wanted.get(path), *others, **more)
        # The hash of a module of local files has another length.
        if _COMMIT.fullmatch(str(module.hash)):
            loaded[path] = module.hash
        return module

    with patch.object(datasets.load, "dataset_module_factory", dataset_module_factory):
        yield loaded


def check_commits(wanted: Mapping[str, str], loaded: Mapping[str, str]) -> None:
    """Raise ``ValueError`` where another commit than the wanted one was loaded.

    Without a network `datasets` takes any commit that is in its cache.
    """
    for repository, commit in loaded.items():
        revision = wanted.get(repository, commit)
        if _COMMIT.fullmatch(revision) and revision != commit:
            raise ValueError(
                f"data_revisions: {repository} must be at commit {revision}; the cache of this "
                f"machine has {commit}, and the hub was not reached"
            )
