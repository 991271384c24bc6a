"""scripts/bench_against_releases.py on stand-ins for the released code, which is not ours."""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch

from otprune import Signals

SCRIPTS = Path(__file__).parent.parent / "scripts"

STAND_IN = """
import a_module_that_is_not_installed


def greedy_select(kernel: a_module_that_is_not_installed.Matrix, count):
    return kernel.diagonal().topk(count).indices


class Model:
    def pairwise_cosine_similarity(self, matrix):
        return matrix @ matrix.T

    def DivPrune(self, tokens, length, cosine_matrix=None, threshold_ratio=0.1):
        cosines = self.pairwise_cosine_similarity(tokens)
        return torch.arange(round(threshold_ratio * length)), cosines

    @torch.no_grad()
    def OTPrune(self, tokens, length, text, cosine_matrix=None, threshold_ratio=0.1):
        return greedy_select(tokens @ tokens.T, round(threshold_ratio * length)), None

    def encode_images(self, images, texts=None):
        features, patches, text = self.get_model().get_vision_tower()(images, texts=texts)
        mask = torch.zeros(features.shape[:2], dtype=torch.bool)
        mask[:, : self.visual_token_num] = True
        return self.get_model().mm_projector(features), mask
"""


@pytest.fixture(scope="module")
def script():
    sys.path.insert(0, str(SCRIPTS))
    try:
        spec = importlib.util.spec_from_file_location(
            "bench_against_releases", SCRIPTS / "bench_against_releases.py"
        )
        module = importlib.util.module_from_spec(spec)
        # Its dataclass looks itself up.
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(SCRIPTS))
    return module


@pytest.fixture
def checkout(tmp_path):
    file = tmp_path / "LLaVA" / "llava" / "model" / "llava_arch.py"
    file.parent.mkdir(parents=True)
    file.write_text(STAND_IN)
    return tmp_path


def test_a_release_is_run_from_its_file_alone(script, checkout):
    tokens = torch.diag(torch.arange(10.0))
    signals = Signals(clip_patches=torch.ones(10, 3), clip_text=torch.ones(1, 3))
    assert script.released_otprune(checkout)(tokens, 3, signals) == [9, 8, 7]
    assert script.released_divprune(checkout)(tokens, 3, signals) == [0, 1, 2]
    assert script.released_cdpruner(checkout)(tokens, 2, signals) == [0, 1]


def test_tables_have_a_row_for_each_method_and_size(script, checkout, monkeypatch):
    monkeypatch.setattr(script, "SIZES", ((16, 8), (20, 8)))
    monkeypatch.setattr(script, "GRIDS", {16: (4, 4), 20: (4, 5)})
    compared = [
        script.Compared("otprune", script.released_otprune(checkout)),
        script.Compared("cdpruner", script.released_cdpruner(checkout)),
    ]
    rows = script.times_table(compared, repeats=1, threads=1)
    assert [(row["method"], row["n"]) for row in rows] == [
        (name, n) for n in (16, 20) for name in ("otprune", "cdpruner")
    ]
    assert rows[0]["picks in common"].endswith("/2")
    half = script.half_table(compared, 16, 8, seeds=2)
    assert [row["dtype"] for row in half] == ["float16", "bfloat16"] * 2
    assert half[0]["preset `released` equals theirs"].endswith("of 2")


def test_another_folder_is_refused(script, tmp_path, checkout):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"must hold one llava/model/llava_arch\.py, got 0"):
        script.released_otprune(tmp_path / "empty")
    file = next(checkout.rglob("llava_arch.py"))
    file.write_text("def other():\n    pass\n")
    with pytest.raises(ValueError, match=r"must define OTPrune, greedy_select"):
        script.released_otprune(checkout)
