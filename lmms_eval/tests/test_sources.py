"""Answers and scores of other source code are told apart, whatever a method's origin."""

import importlib.util
import sys
import types

import pytest

from helpers import request, tiny
from otprune import PRUNERS
from otprune_lmms import sources
from otprune_lmms.engine import Engine
from otprune_lmms.engine.session import source_of
from otprune_lmms.journal import Journal
from otprune_lmms.models.llava import Llava
from otprune_lmms.pruning_config import PruningConfig
from otprune_lmms.scoring import ScoreCache, TaskScorer, load_tasks
from otprune_lmms.sources import class_hash
from suites import make_suite

METHOD = """
from dataclasses import dataclass

import torch
from otprune import Selector
{imports}

@dataclass(frozen=True, slots=True)
class Mine(Selector):
    def _rank_image(self, tokens, k, signals):
        return ranked(len(tokens))[:k]
"""
RANKING = "import torch\n\ndef ranked(n):\n    return torch.arange(n)\n"
REVERSED = RANKING.replace("(n)\n", "(n).flip(0)\n", 2).replace("ranked(n).flip(0)", "ranked(n)")


@pytest.fixture
def changed(monkeypatch):
    """Return the hash that a function would give if the source of some files were another."""

    def changed(function, *files):
        read = sources._content

        def other(file):
            return read(file) + (b"#" if any(str(file).endswith(one) for one in files) else b"")

        with monkeypatch.context() as patch:
            patch.setattr(sources, "_content", other)
            return function()

    return changed


def test_a_built_in_method_is_its_class_and_what_that_uses(changed):
    def method():
        return class_hash.__wrapped__(PRUNERS["otprune"])

    same = method()
    assert same == changed(method) == class_hash(PRUNERS["otprune"])
    assert changed(method, "selectors/divprune.py", "llava_arch.py", "registry.py") == same
    for own in ("selectors/otprune.py", "selector.py", "greedy/active_set.py", "kernels.py"):
        assert changed(method, f"/otprune/{own}") != same


def test_the_code_that_answers_is_family_llava_and_engine_without_the_methods(changed):
    def code():
        return source_of.__wrapped__(Llava)

    same = code()
    assert same == changed(code, "selectors/divprune.py", "reporting/cost.py", "llava/chat.py")
    for own in (
        *(
            "models/llava.py",
            "models/generation.py",
            "engine/responder.py",
            "otprune_lmms/images.py",
        ),
        *("llava/model/splice.py", "llava/conversation.py", "multimodal_encoder/clip_encoder.py"),
        *("hf/layers/prefill.py", "pruning/choose.py"),
    ):
        assert changed(code, own) != same, own


def module(name, file):
    spec = importlib.util.spec_from_file_location(name, file)
    made = importlib.util.module_from_spec(spec)
    sys.modules[name] = made
    spec.loader.exec_module(made)
    return made


@pytest.fixture(params=["package", "script"])
def method(request, tmp_path, monkeypatch):
    """Return a function that writes a method with a ranking and returns its class, loaded anew."""
    folder = tmp_path / ("mine" if request.param == "package" else ".")
    folder.mkdir(exist_ok=True)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    names = ("mine", "mine.method", "mine.ranking", "ranking", "unused")
    beside = "from ranking import ranked"

    def method(ranking=RANKING, unused=""):
        (folder / "unused.py").write_text(unused)
        (folder / "ranking.py").write_text(ranking)
        inside = "from mine.ranking import ranked"
        text = METHOD.format(imports=inside if request.param == "package" else beside)
        (folder / "method.py").write_text(text)
        for name in names:
            sys.modules.pop(name, None)
        importlib.invalidate_caches()
        if request.param == "package":
            (folder / "__init__.py").write_text("from mine.method import Mine\n")
            (folder / "method.py").write_text(text.replace("mine.ranking", ".ranking"))
            return importlib.import_module("mine").Mine
        return module("__main__", folder / "method.py").Mine

    return method


def test_a_method_of_a_package_or_script_is_its_modules(method):
    same = class_hash(method())
    assert class_hash(method(unused="1")) == same
    assert class_hash(method(RANKING.replace("\n", "\r\n"))) == same
    assert class_hash(method(REVERSED)) != same


@pytest.mark.parametrize("method", ["package"], indirect=True)
def test_answers_of_a_method_whose_code_has_changed_are_made_again(method, tmp_path, monkeypatch):
    model = tiny()

    def run(mine):
        monkeypatch.setitem(PRUNERS._methods, "mine", mine)
        configs = [PruningConfig(), PruningConfig.make("mine", 0.1)]
        with Journal(tmp_path / "journal") as journal:
            engine = Engine(model, model_name="t", workers=0, journal=journal, progress=False)
            answers = engine.run([request(0)], configs)
        return answers[configs[1], request(0)].text, answers.counts.generated

    first = run(method())
    assert first[1] == 2
    assert run(method()) == (first[0], 0)
    text, generated = run(method(REVERSED))
    assert (text != first[0], generated) == (True, 1)


def test_a_method_of_a_notebook_is_its_functions():
    def made(ranking):
        notebook = types.ModuleType("notebook_of_a_test")
        sys.modules[notebook.__name__] = notebook
        exec(METHOD.format(imports="\n".join(ranking.split("\n")[1:])), vars(notebook))
        found = class_hash(notebook.Mine)
        del sys.modules[notebook.__name__]
        return found

    assert made(RANKING) == made(RANKING)
    assert made(RANKING) != made(REVERSED)


RESULTS = "from scores import value\n\ndef results(doc, given):\n    return value(doc)\n"
SCORES = "def value(doc):\n    return {'right': 1.0}\n"


def test_a_score_of_other_code_is_made_again(tmp_path, changed, monkeypatch):
    folder = make_suite(tmp_path, ["pope"])
    (folder / "utils.py").write_text(RESULTS)
    (folder / "scores.py").write_text(SCORES)
    monkeypatch.syspath_prepend(folder)
    file = folder / "pope.yaml"
    file.write_text(file.read_text() + "process_results: !function utils.results\n")
    task = load_tasks(["pope"], folder)["pope"]

    def key():
        return ScoreCache(tmp_path).key(TaskScorer(task, "pope"), {0: ["yes"]})

    same = key()
    assert same == changed(key, "benchmarks/gqa.py", "models/llava.py")
    for own in ("utils.py", "tasks/scores.py", "benchmarks/pope.py", "scoring/score.py"):
        assert changed(key, own) != same, own
    task.config.metric_list = task.config.metric_list[:-1]
    assert key() != same
