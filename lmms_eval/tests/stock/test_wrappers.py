"""lmms-eval's own wrappers beside their pruned subclasses, on tiny checkpoints of their families.

They import packages that the ordinary environment has not: `scripts/test_wrappers.sh` has one for
these tests.
"""

import functools
import importlib.util
import json
import warnings
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import lmms_eval.tasks
import numpy as np
import pytest
import torch
from lmms_eval.models import MODEL_REGISTRY_V2
from transformers import GenerationMixin
from transformers.image_utils import load_image

from helpers import Done, command, pope_rows, run, write_task
from otprune.hf import pruned
from otprune_lmms.stock_wrappers import WRAPPERS
from tiny_checkpoints import write_checkpoint

MISSING = [
    name
    for name in ("av", "decord", "qwen_vl_utils", "torchvision")
    if importlib.util.find_spec(name) is None
]
pytestmark = pytest.mark.skipif(
    bool(MISSING), reason=f"no {', '.join(MISSING)}: scripts/test_wrappers.sh"
)

TASK, DOCUMENTS = "tiny_pope", 4
QUARTER = "method=divprune,keep_ratio=0.25"


class Case(NamedTuple):
    """A wrapper, the family of its checkpoint, its arguments, and which of its classes is meant."""

    wrapper: str
    family: str
    arguments: str = "device_map=cpu"
    simple: bool = False

    def __str__(self) -> str:
        return f"{self.wrapper}-{self.family}-{'simple' if self.simple else 'chat'}"


SIZES = "device_map=cpu,min_pixels=4096,max_pixels=65536"
CASES = [
    Case("gemma3", "gemma3", simple=True),
    Case("glm4v", "glm4v", simple=True),
    Case("idefics2", "idefics2", "device_map=cpu,dtype=float32", simple=True),
    Case("internvl_hf", "internvl"),
    Case("llava_hf", "llava"),
    Case("llava_hf", "llava_next"),
    Case("llava_hf", "llava_onevision"),
    Case("llava_hf", "llava", simple=True),
    Case("mistral3_vl", "mistral3", simple=True),
    Case("qwen2_vl", "qwen2_vl", SIZES, simple=True),
    Case("qwen2_5_vl", "qwen2_5_vl", SIZES),
    Case("qwen2_5_vl", "qwen2_5_vl", SIZES, simple=True),
    Case("qwen3_vl", "qwen3_vl", SIZES),
    Case("qwen3_vl", "qwen3_vl", SIZES, simple=True),
    Case("qwen3_5", "qwen3_5", f"{SIZES},enable_thinking=False"),
    Case("qwen3_5", "qwen3_5", f"{SIZES},enable_thinking=False", simple=True),
]
QWEN = next(case for case in CASES if case.wrapper == "qwen2_5_vl")
DEAF = ("idefics2", "qwen3_5")
"""Families whose tiny model says the same whatever it sees; their prompts still get shorter."""

all_cases = pytest.mark.parametrize("case", CASES, ids=str)


@pytest.fixture(autouse=True)
def _images_are_read_without_torchvision_s_codecs(monkeypatch):
    """They cannot be loaded beside a CPU build of torch; they read what PIL reads."""

    def load(image, **_):
        pixels = np.array(load_image(image).convert("RGB"))
        return torch.from_numpy(pixels).permute(2, 0, 1)

    monkeypatch.setattr("transformers.image_processing_backends.load_image_as_tensor", load)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Write a family's checkpoint, once."""
    folder = tmp_path_factory.mktemp("checkpoints")

    @functools.cache
    def checkpoint(family):
        # lmms-eval's glm4v takes a model without "Flash" in its name for a mixture of experts.
        write_checkpoint(folder / family / "Flash", family)
        return folder / family / "Flash"

    return checkpoint


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    """Words of a command line that name a task of our own, made of pope: chat wrappers need it."""
    folder = tmp_path_factory.mktemp("tasks")
    write_task(folder, "pope", "test", pope_rows(DOCUMENTS))
    content = json.loads((folder / "pope.yaml").read_text())
    (folder / "pope.yaml").unlink()
    stock = Path(lmms_eval.tasks.__file__).parent / "pope" / "pope.yaml"
    data = {"test": str(folder / "pope.parquet")}
    content["generation_kwargs"]["temperature"] = 0
    content |= {"include": str(stock), "task": TASK, "dataset_kwargs": {"data_files": data}}
    (folder / f"{TASK}.yaml").write_text(json.dumps(content))
    return TASK, "--include_path", str(folder)


@pytest.fixture
def lengths(monkeypatch):
    """Ids of the prompts of each call that entered the language model, without padding."""
    found = []
    generate = GenerationMixin.generate

    @functools.wraps(generate)
    def counted(self, *args, **kwargs):
        found.append(int(kwargs["attention_mask"].sum()))
        return generate(self, *args, **kwargs)

    monkeypatch.setattr(GenerationMixin, "generate", counted)
    return found


@pytest.fixture
def answered(main, checkpoint, tasks, tmp_path, lengths):
    """Run lmms-eval's command line; return the run, its answers and the lengths of its prompts."""
    outputs = iter(range(100))

    def answered(model, case, settings="", *more):
        lengths.clear()
        output = tmp_path / f"run{next(outputs)}"
        given = [f"pretrained={checkpoint(case.family)}", case.arguments, settings]
        more = (*more, *(["--force_simple"] if case.simple else []))
        task, *where = tasks
        words = command(task, output, ",".join(filter(None, given)), *where, *more, model=model)
        done = Done(0, main(*words[3:]), output)
        return done, done.answers(TASK), lengths.copy()

    return answered


def stock_class(case):
    with warnings.catch_warnings():
        # The modules switch warnings off for the whole process.
        warnings.simplefilter("ignore")
        return MODEL_REGISTRY_V2.get_model_class(case.wrapper, case.simple)


def prune_by_hand(case, monkeypatch):
    """From now on a stock wrapper answers inside a block."""
    stock = stock_class(case)
    answer = stock.generate_until

    def by_hand(self, requests):
        with pruned(self.model, "divprune", keep_ratio=0.25):
            return answer(self, requests)

    monkeypatch.setattr(stock, "generate_until", by_hand)


@all_cases
def test_without_a_method_answers_and_prompts_are_the_stock_wrapper_s(case, answered):
    stock, want, lengths = answered(case.wrapper, case)
    ours, answers, same = answered(f"otprune_{case.wrapper}", case)
    assert answers == want
    assert same == lengths
    assert len(want) == DOCUMENTS
    assert min(map(len, want.values())) > 1
    kind = "simple" if case.simple else "chat"
    assert stock.results["config"]["model_backend"].endswith(f"({kind})")
    assert ours.results["config"]["model_backend"].endswith(f"({kind})")
    assert "Pruned" in ours.results["config"]["model_backend"]


@all_cases
def test_pruned_answers_are_the_stock_wrapper_s_inside_a_block(case, answered, monkeypatch):
    _, whole, long = answered(case.wrapper, case)
    done, answers, short = answered(f"otprune_{case.wrapper}", case, QUARTER)
    kept, visual = (
        done.results["throughput"][f"avg_{one}"] for one in ("visual_tokens_kept", "visual_tokens")
    )
    assert kept == pytest.approx(visual / 4, rel=0.15)
    assert sum(long) - sum(short) == pytest.approx(DOCUMENTS * (visual - kept))
    assert f"divprune-0.25: kept {kept:.1f} of {visual:.1f} visual tokens an image" in done.text
    assert f"the mean over {DOCUMENTS} images in {DOCUMENTS} calls" in done.text

    prune_by_hand(case, monkeypatch)
    _, want, lengths = answered(case.wrapper, case)
    assert answers == want
    assert short == lengths
    assert answers != whole or case.family in DEAF


def test_batches_of_images_of_different_sizes(answered, monkeypatch):
    three = ("--batch_size", "3")
    _, want, lengths = answered("qwen2_5_vl", QWEN, "", *three)
    assert answered("otprune_qwen2_5_vl", QWEN, "", *three)[1:] == (want, lengths)
    done, answers, short = answered("otprune_qwen2_5_vl", QWEN, QUARTER, *three)
    assert sum(short) < sum(lengths)
    assert "the mean over 4 images in 2 calls" in done.text
    prune_by_hand(QWEN, monkeypatch)
    assert answered("qwen2_5_vl", QWEN, "", *three)[1:] == (answers, short)
    assert answers != want


def test_each_wrapper_is_tested_in_each_of_its_kinds():
    found = {(case.wrapper, case.simple) for case in CASES}
    wanted = {(name, True) for name, kinds in WRAPPERS.items() if kinds.simple}
    assert found == wanted | {(name, False) for name, kinds in WRAPPERS.items() if kinds.chat}


def test_the_cache_never_gives_another_setting_s_answers(answered, tmp_path, monkeypatch):
    # The cache also knows answers by the commit of the repository that it is installed in.
    monkeypatch.setattr("lmms_eval.utils.get_git_commit_hash", lambda: "one")
    case, cache = QWEN, ("--use_cache", str(tmp_path / "cache"))
    settings = ["", QUARTER, "method=divprune,keep_ratio=0.5", "method=random,keep_ratio=0.25"]
    found = []
    for one in settings:
        done, answers, _ = answered("otprune_qwen2_5_vl", case, one, *cache)
        assert "ResponseCache stats: 0 hits" in done.text
        found.append(answers)
    assert all(one != other for one, other in combinations(found, 2))
    done, answers, lengths = answered("otprune_qwen2_5_vl", case, QUARTER, *cache)
    assert f"ResponseCache stats: {DOCUMENTS} hits" in done.text
    assert (answers, lengths) == (found[1], [])


def test_the_command_line_as_it_is_typed(checkpoint, tasks, answered, tmp_path):
    case = QWEN
    given = f"pretrained={checkpoint(case.family)},{case.arguments}"
    task, *where = tasks
    given_all = f"{given},{QUARTER}"
    done = run(task, tmp_path / "typed", given_all, *where, model="otprune_qwen2_5_vl")
    assert done.status == 0, done.text
    assert done.answers(TASK) == answered("otprune_qwen2_5_vl", case, QUARTER)[1]
    assert done.results["config"]["model_args"] == given_all


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ("method=divprune,keep_ratio=9.8", "keep_ratio must be in (0, 1], got 9.8"),
        ("keep_ration=0.2", "unknown argument 'keep_ration' in model_args"),
        ("method=divprune,keep_ratio=0.2,layer=99", "layer"),
    ],
)
def test_a_bad_setting_is_one_sentence_and_another_exit_status(
    settings, said, checkpoint, tasks, tmp_path
):
    given = f"pretrained={checkpoint('llava')},device_map=cpu,{settings}"
    task, *where = tasks
    done = run(task, tmp_path / "bad", given, *where, model="otprune_llava_hf")
    assert done.status == 1, done.text
    assert said in done.text.splitlines()[-1]
    assert "Traceback" not in done.text
