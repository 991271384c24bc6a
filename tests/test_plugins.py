"""Methods of other packages: installed as a user would, and broken in every way."""

import json
import logging
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from otprune import BUILT_IN, LAYER_PRUNERS, MERGERS, PRUNERS, SELECTORS, FirstK, Selector
from otprune.registry import MethodsOfKind, Registry

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The folder into which pip has installed a copy of the sample package."""
    source = tmp_path_factory.mktemp("source") / "plugin"
    target = tmp_path_factory.mktemp("site")
    shutil.copytree(ROOT / "examples" / "plugin", source)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--no-build-isolation", "--no-index", "--target", target, source]
    subprocess.run(command, check=True)
    return target


USE = """
import json, sys
import otprune

otprune.make_pruner("otprune"), otprune.make_pruner("fastv")
found = {"imported early": "otprune_largest_norm" in sys.modules}
try:
    otprune.make_pruner("largest_norm", powr=1)
except ValueError as error:
    found["mistake"] = str(error)
import torch

tokens = torch.tensor([[3.0, 0, 0], [2, 2, 2], [0, 1, 0], [1, -1, 1]])
found["euclid"] = otprune.make_pruner("largest_norm").select(tokens, k=2).tolist()
manhattan = otprune.make_pruner("largest_norm", preset="manhattan")
found["manhattan"] = manhattan.rank(tokens, 3).tolist()
for kind in ("PRUNERS", "SELECTORS", "MERGERS", "BUILT_IN"):
    found[kind] = "largest_norm" in list(getattr(otprune, kind))
found["others"] = len(otprune.PRUNERS) - len(otprune.BUILT_IN)
print(json.dumps(found))
"""


def test_an_installed_package_s_method_is_known_by_name_and_works(installed):
    done = subprocess.run(
        [sys.executable, "-c", USE],
        env={"PYTHONPATH": str(installed), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "is left out" not in done.stderr
    assert json.loads(done.stdout) == {
        "imported early": False,
        "mistake": "unknown setting 'powr' of pruner largest_norm; known: power",
        "euclid": [0, 1],
        "manhattan": [1, 0, 3],
        "PRUNERS": True,
        "SELECTORS": True,
        "MERGERS": False,
        "BUILT_IN": False,
        "others": 1,
    }


def distribution(folder: Path, name: str, module: str | None, *entries: str) -> None:
    """Write what pip leaves of a distribution with entry points, and its module."""
    info = folder / f"{name.replace('-', '_')}-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text("\n".join(["[otprune.methods]", *entries, ""]))
    if module is not None:
        (folder / f"{name.replace('-', '_')}.py").write_text(module)


GOOD = """
from dataclasses import dataclass
from otprune import FirstK

@dataclass(frozen=True, slots=True)
class Good(FirstK):
    "O(k)."
"""

BROKEN = {
    "is-missing": (None, "a = is_missing:Good", "a", "ModuleNotFoundError: No module named 'is_"),
    "lacks-it": ("", "b = lacks_it:Good", "b", "AttributeError: module 'lacks_it' has no"),
    "bad-syntax": ("def", "c = bad_syntax:Good", "c", "SyntaxError: "),
    "raises": ("raise KeyError('x')", "d = raises:Good", "d", "KeyError: 'x'"),
    "exits": ("import sys; sys.exit('bye')", "e = exits:Good", "e", "SystemExit: bye"),
    "no-class": ("Good = 3", "f = no_class:Good", "f", "3, which is no subclass of Selector"),
    "other-class": ("class Good: pass", "g = other_class:Good", "g", "which is no subclass of"),
    "no-dataclass": (
        "from otprune import Selector\nclass Good(Selector):\n    pass",
        "h = no_dataclass:Good", "h", "which is no dataclass",
    ),
    "half-done": (
        "from dataclasses import dataclass\nfrom otprune import Selector\n"
        "@dataclass(frozen=True)\nclass Good(Selector):\n    pass",
        "i = half_done:Good", "i", "which does not implement _rank_image",
    ),
    "takes-a-name": (GOOD, "otprune = takes_a_name:Good", "otprune", "of this name exists already"),
    "no-reference": (GOOD, "j = what is this?", "j", "Error: "),
}  # fmt: skip


@pytest.fixture
def registry(tmp_path, monkeypatch):
    """A registry that has not loaded anything, and the folder where it will look."""
    monkeypatch.syspath_prepend(tmp_path)
    return Registry(BUILT_IN)


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_package_is_left_out_with_one_warning(name, registry, tmp_path, caplog):
    module, entry, method, reason = BROKEN[name]
    distribution(tmp_path, name, module, entry)
    distribution(tmp_path, "is-good", GOOD, "good = is_good:Good")
    with caplog.at_level(logging.WARNING):
        assert set(registry) == {*BUILT_IN, "good"}
    (record,) = caplog.records
    message = record.getMessage()
    assert message.startswith(f"method '{method}' of distribution {name} 1.2 is left out: ")
    assert reason in message
    assert "\n" not in message
    assert registry["otprune"] is BUILT_IN["otprune"]
    caplog.clear()
    assert len(registry) == len(BUILT_IN) + 1
    assert not caplog.records


def test_of_two_packages_with_one_name_the_first_by_name_stays(registry, tmp_path, caplog):
    for name in ("second", "first"):
        distribution(tmp_path, name, GOOD, f"same = {name}:Good")
    assert registry["same"].__module__ == "first"
    (record,) = caplog.records
    assert "of distribution second 1.2 is left out: a method of this name" in record.getMessage()


def test_a_package_may_look_at_the_registry_while_it_is_imported(registry, tmp_path, monkeypatch):
    monkeypatch.setattr("otprune.registry.PRUNERS", registry)
    module = f"from otprune.registry import PRUNERS\nseen = len(PRUNERS)\n{GOOD}"
    distribution(tmp_path, "looks", module, "good = looks:Good")
    assert "good" in registry
    assert sys.modules["looks"].seen == len(BUILT_IN)


def test_threads_that_come_together_see_the_same_methods(registry, tmp_path):
    slow = f"import time; time.sleep(0.3)\n{GOOD}"
    distribution(tmp_path, "is-slow", slow, "good = is_slow:Good")
    found = []
    threads = [threading.Thread(target=lambda: found.append(len(registry))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [len(BUILT_IN) + 1] * 4


def test_a_registry_is_a_mapping_that_can_be_added_to():
    registry = Registry(BUILT_IN)
    selectors = MethodsOfKind(registry, Selector)
    registry["mine"] = FirstK
    assert "mine" in registry
    assert list(registry)[-1] == "mine"
    assert "mine" in selectors
    assert selectors["mine"] is FirstK
    del registry["mine"]
    assert "mine" not in registry
    assert len(selectors) == len(SELECTORS)
    with pytest.raises(KeyError):
        selectors["fastv"]
    with pytest.raises(ValueError, match="'mine' must be a method class, got 3, which is no sub"):
        registry["mine"] = 3
    with pytest.raises(TypeError):
        BUILT_IN["mine"] = FirstK


def test_built_in_methods_are_those_of_this_package():
    assert all(method.__module__.startswith("otprune.") for method in BUILT_IN.values())
    assert set(BUILT_IN) <= set(PRUNERS)
    assert len({*SELECTORS, *MERGERS, *LAYER_PRUNERS}) == len(PRUNERS)


def test_every_method_class_can_be_imported_from_the_package():
    import otprune

    for method in BUILT_IN.values():
        assert getattr(otprune, method.__name__) is method
        assert method.__name__ in otprune.__all__


def test_the_sample_s_answers_are_the_largest_norms(installed, monkeypatch):
    monkeypatch.syspath_prepend(installed)
    from otprune_largest_norm import LargestNorm

    tokens = torch.randn(20, 6, generator=torch.Generator().manual_seed(0))
    largest = tokens.norm(dim=1).topk(5).indices.sort().values
    assert torch.equal(LargestNorm().select(tokens, k=5), largest)
    with pytest.raises(ValueError, match="power must be at least 1, got 0"):
        LargestNorm(power=0)
