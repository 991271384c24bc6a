"""Which wrappers are pruned, and what is said of the others."""

import sys

import pytest
from lmms_eval.models import (
    AVAILABLE_CHAT_TEMPLATE_MODELS,
    AVAILABLE_SIMPLE_MODELS,
    get_model,
    list_available_models,
)
from lmms_eval.models.registry_v2 import ModelRegistryV2

from otprune_lmms import stock_wrappers
from otprune_lmms.environment import SettingsError
from otprune_lmms.launch import prepare_command_line
from otprune_lmms.stock.classes import pruned_class
from otprune_lmms.stock_wrappers import STOCK_IDS, WRAPPERS, refusal


def test_each_wrapper_has_an_id_of_its_own_with_the_kinds_that_lmms_eval_has():
    registry = ModelRegistryV2()
    registry.load_entrypoint_manifests()
    for wrapper, (simple, chat) in WRAPPERS.items():
        assert simple == (wrapper in AVAILABLE_SIMPLE_MODELS)
        assert chat == (wrapper in AVAILABLE_CHAT_TEMPLATE_MODELS)
        found = registry.get_manifest(f"otprune_{wrapper}")
        assert found.simple_class_path == (
            f"otprune_lmms.stock.simple.{wrapper}" if simple else None
        )
        assert found.chat_class_path == (f"otprune_lmms.stock.chat.{wrapper}" if chat else None)
    assert {*STOCK_IDS} <= {*list_available_models()}


def test_a_missing_package_is_named_in_a_sentence(monkeypatch):
    for name in [one for one in sys.modules if one.startswith("lmms_eval.models.simple.llava_hf")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "decord", None)
    pruned_class.cache_clear()
    with pytest.raises(SettingsError, match="wrapper llava_hf needs the package decord, which is"):
        get_model("otprune_llava_hf", force_simple=True)
    pruned_class.cache_clear()


def test_there_is_no_class_of_another_kind_or_name():
    with pytest.raises(AttributeError, match="no chat wrapper 'qwen2_vl'"):
        pruned_class("qwen2_vl", "chat")
    with pytest.raises(AttributeError, match="no simple wrapper '__wrapped__'"):
        pruned_class("__wrapped__", "simple")


@pytest.mark.parametrize("listed", ["_OWN_CODE", "_OTHER_ENGINES", "_FAILING"])
def test_what_is_said_to_be_impossible_is_a_wrapper_of_lmms_eval(listed):
    known = {*AVAILABLE_SIMPLE_MODELS, *AVAILABLE_CHAT_TEMPLATE_MODELS}
    found = getattr(stock_wrappers, listed)
    assert {*found} <= known
    assert not {*found} & {*WRAPPERS}


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("otprune_minicpm_v", "wrapper minicpm_v runs code of the model's authors"),
        ("otprune_internvl2", "wrapper internvl2 runs code of the model's authors"),
        ("otprune_vllm", "wrapper vllm answers in another engine"),
        ("otprune_huggingface", "wrapper huggingface fails with transformers 5.23"),
        ("otprune_qwen25_vl", "s not known; .*did you mean 'otprune_qwen2_5_vl'"),
    ],
)
def test_a_wrapper_that_is_not_pruned_ends_lmms_eval_with_a_sentence(model, said, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["lmms-eval", "--model", model, "--tasks", "pope"])
    with pytest.raises(SystemExit, match=f"otprune_lmms: --model {model} i.*{said}"):
        prepare_command_line()


@pytest.mark.parametrize("model", [*STOCK_IDS, "otprune_llava", "otprune", "llava", "qwen2_5_vl"])
def test_other_names_are_nothing_to_refuse(model):
    assert refusal(model) is None
