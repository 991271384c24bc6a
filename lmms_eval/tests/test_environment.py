"""The environment and --model_args, two ways to say the same."""

import ast
from pathlib import Path

import pytest

import otprune_lmms
from otprune_lmms.environment import Environment, SettingsError, read_environment
from otprune_lmms.launch.command_line import arguments_of, completed, translated
from otprune_lmms.model_arguments import Arguments, parse
from otprune_lmms.pruning_config import PruningConfig

BASE = "pretrained=somewhere"


def said(monkeypatch, **variables) -> Environment:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return read_environment()


def config(text: str) -> PruningConfig:
    return parse(arguments_of(text)).config


def test_one_function_reads_settings_from_the_environment_and_one_hands_it_to_children():
    found = []
    for file in Path(otprune_lmms.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.FunctionDef):
                names = {n.attr for n in ast.walk(node) if isinstance(n, ast.Attribute)}
                if names & {"environ", "getenv"}:
                    found.append((file.name, node.name))
    assert sorted(found) == [
        ("environment.py", "child_environment"),
        ("environment.py", "data_caches"),
        ("environment.py", "data_variables"),
        ("environment.py", "read_environment"),
    ]


@pytest.mark.parametrize("baseline", ["OURS", "ours", "OTPRUNE", "OTPrune", "otprune", " OURS "])
def test_the_variables_and_the_arguments_are_the_same_settings(monkeypatch, baseline):
    given = said(monkeypatch, BASELINE=baseline, LAYER_INDEX="0", SUBSET_RATIO="0.098")
    text = completed(BASE, given)
    assert config(text) == PruningConfig.make("otprune", 0.098)
    assert config(text) == config(f"{BASE},method=otprune,keep_ratio=0.098,layer=0")
    assert config(text) == config(f"{BASE},method=OURS,subset_ratio=0.098,layer_index=0")
    assert completed(text, given) == text


@pytest.mark.parametrize("method", ["divprune", "random", "uniform", "w2greedy"])
def test_any_registered_method_is_a_baseline(monkeypatch, method):
    given = said(monkeypatch, BASELINE=method.upper(), SUBSET_RATIO="0.25", LAYER_INDEX="2")
    assert config(completed(BASE, given)) == PruningConfig.make(method, 0.25, layer=2)


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"BASELINE": ""},
        {"BASELINE": "ORIG"},
        {"BASELINE": "None"},
        {"BASELINE": "orig", "LAYER_INDEX": "0", "SUBSET_RATIO": "0.098"},
        {"LAYER_INDEX": "0", "SUBSET_RATIO": "0.098"},
    ],
)
def test_no_baseline_prunes_nothing(monkeypatch, variables):
    assert config(completed(BASE, said(monkeypatch, **variables))) == PruningConfig()


def test_settings_of_both_go_together_unless_they_differ(monkeypatch):
    given = said(monkeypatch, BASELINE="OURS", SUBSET_RATIO="0.1")
    text = completed(f"{BASE},gamma=0.05,layer=2,keep_ratio=0.1", given)
    assert config(text) == PruningConfig.make("otprune", 0.1, layer=2, gamma=0.05)
    only_method = said(monkeypatch, SUBSET_RATIO="")
    assert config(completed(f"{BASE},k=5", only_method)) == PruningConfig.make("otprune", k=5)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"BASELINE": "OURZ"}, "BASELINE must be one of .* got 'OURZ'"),
        ({"BASELINE": "OURS"}, "BASELINE=otprune needs SUBSET_RATIO"),
        ({"BASELINE": "OURS", "LAYER_INDEX": "0"}, "LAYER_INDEX=0 needs SUBSET_RATIO"),
        ({"LAYER_INDEX": "0"}, "LAYER_INDEX=0 needs SUBSET_RATIO"),
        ({"BASELINE": "OURS", "SUBSET_RATIO": "0"}, r"SUBSET_RATIO must be in \(0, 1\], got 0.0"),
        ({"BASELINE": "OURS", "SUBSET_RATIO": "9.8"}, r"SUBSET_RATIO must be in \(0, 1\]"),
        ({"BASELINE": "OURS", "SUBSET_RATIO": "nan"}, r"SUBSET_RATIO must be in \(0, 1\]"),
        ({"BASELINE": "OURS", "SUBSET_RATIO": "10%"}, r"SUBSET_RATIO must be in \(0, 1\]"),
        ({"SUBSET_RATIO": "1.5"}, r"SUBSET_RATIO must be in \(0, 1\]"),
        (
            {"BASELINE": "OURS", "SUBSET_RATIO": "0.1", "LAYER_INDEX": "-1"},
            "LAYER_INDEX must be an integer >= 0, got '-1'",
        ),
        (
            {"BASELINE": "OURS", "SUBSET_RATIO": "0.1", "LAYER_INDEX": "0.5"},
            "LAYER_INDEX must be an integer >= 0",
        ),
    ],
)
def test_variables_that_cannot_be_meant_are_refused(monkeypatch, variables, message):
    with pytest.raises(SettingsError, match=message):
        completed(BASE, said(monkeypatch, **variables))


@pytest.mark.parametrize(
    "arguments",
    ["method=divprune", "method=none", "keep_ratio=0.2", "subset_ratio=0.2", "layer=1", "k=5"],
)
def test_a_conflict_is_refused(monkeypatch, arguments):
    given = said(monkeypatch, BASELINE="OURS", SUBSET_RATIO="0.1", LAYER_INDEX="0")
    with pytest.raises(SettingsError, match="in the environment"):
        completed(f"{BASE},{arguments}", given)


def test_a_schedule_needs_no_budget_and_takes_one(monkeypatch):
    given = said(monkeypatch, BASELINE="TransPrune")
    assert config(completed(f"{BASE},preset=low", given)) == PruningConfig.make(
        "transprune", preset="low"
    )
    given = said(monkeypatch, BASELINE="TRANSPRUNE", SUBSET_RATIO="0.4", LAYER_INDEX="0")
    assert config(completed(BASE, given)) == PruningConfig.make("transprune", 0.4)
    flops = completed(f"{BASE},match=flops", given)
    assert config(flops) == PruningConfig.make("transprune", 0.4, match="flops")
    given = said(monkeypatch, BASELINE="TRANSPRUNE", SUBSET_RATIO="0.4", LAYER_INDEX="2")
    with pytest.raises(SettingsError, match="layer must be 0 for TransPrune, whose schedule"):
        completed(BASE, given)


def test_model_args_take_schedules_and_what_a_budget_is_about():
    schedule = "7:0.875/9:0.625"
    assert config(f"{BASE},method=transprune,preset=low") == PruningConfig.make(
        "transprune", preset="low"
    )
    assert config(f"{BASE},method=fastv,schedule={schedule}") == PruningConfig.make(
        "fastv", schedule=schedule
    )
    assert config(f"{BASE},method=fastv,k=64,schedule=2:32") == PruningConfig.make(
        "fastv", k=64, schedule="2:32"
    )
    assert config(f"{BASE},method=otprune,k=64,layer=2,match=average") == PruningConfig.make(
        "otprune", k=64, layer=2, match="average"
    )
    # Numbers on a command line, text to the method.
    assert config(f"{BASE},method=sparsevlm,version=2") == PruningConfig.make(
        "sparsevlm", version="2"
    )
    assert config(f"{BASE},method=dart,preset=192") == PruningConfig.make("dart", preset="192")


def test_orig_conflicts_with_a_method(monkeypatch):
    with pytest.raises(SettingsError, match="BASELINE in the environment says method=none"):
        completed(f"{BASE},method=otprune,keep_ratio=0.1", said(monkeypatch, BASELINE="ORIG"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("foo=1", "unknown argument 'foo' in model_args; known: .*pretrained"),
        ("method=otprune,keep_ratio=0.1,foo=1", "settings of otprune: preset, .*gamma"),
        ("gamma=0.1", "unknown argument 'gamma'"),
        ("method=otprune", "exactly one of keep_ratio and k"),
        ("keep_ratio=0.1", "keep_ratio needs a method"),
        ("method=none,keep_ratio=0.1", "keep_ratio needs a method"),
        ("method=otprune,keep_ratio=2", r"keep_ratio must be in \(0, 1\], got 2"),
        ("keep_ratio=0.1,subset_ratio=0.2,method=otprune", "keep_ratio is given twice"),
        ("method=best,keep_ratio=0.1", "method must be one of"),
        ("method=fastv,match=flops", "match='flops' needs keep_ratio or k"),
        ("method=fastv,k=9,layer=2", "layer must be 0 for FastV, whose schedule names its layers"),
        ("method=otprune,k=9,match=cost", "match must be kept, average or flops, got 'cost'"),
        ("method=fastv,schedule=2", "schedule must be layer:share or layer:count"),
        ("dtype=int8", "dtype must be one of"),
        ("conv_template=gpt", "chat_template must be one of"),
        ("seed_video=last", "seed_video must be one of"),
        ("batch_size=0", "batch_size must be an integer >= 1"),
        ("batch_size=many", "batch_size must be an integer >= 1"),
        ("workers=-1", "workers must be an integer >= 0"),
        ("workers=99999", "workers must be an integer >= 0 and <= 256, got 99999"),
        ("batch_size=1000000000", "batch_size must be an integer >= 1 and <= 4096, got 1000000000"),
        ("batch_size=auto:x", "batch_size must be an integer >= 1 or auto, got 'auto:x'"),
        ("batch_size=autos", "batch_size must be an integer >= 1 or auto, got 'autos'"),
        ("batch_size=--5", "batch_size must be an integer >= 1 or auto, got '--5'"),
        ("journal=", "journal must not be empty"),
        ("device=gpu", "device must be cpu, cuda, cuda:N or mps, got 'gpu'"),
        ("device=", "device must be cpu, cuda, cuda:N or mps, got ''"),
        ("device_map=balanced", "device_map, unless it is auto, must be cpu, cuda, cuda:N or mps"),
        ("keep_ration=0.1,method=otprune", "known: .*; did you mean 'keep_ratio'"),
        ("method=otprun,keep_ratio=0.1", "got 'otprun'; did you mean 'otprune'"),
        ("use_cache=maybe", "use_cache must be one of"),
        ("customized_config=x.json", "customized_config is not supported"),
        ("method", "model_args must be name=value"),
    ],
)
def test_mistakes_in_model_args_are_one_sentence(arguments, message):
    with pytest.raises(SettingsError, match=message) as caught:
        parse(arguments_of(f"{BASE},{arguments}"))
    assert "\n" not in str(caught.value)


def test_arguments_of_the_stock_wrapper_are_taken():
    text = (
        f"{BASE},truncation=True,device=cuda:0,batch_size=4,model_name=x,attn_implementation=sdpa,"
        "device_map=cuda:0,conv_template=v1,use_cache=False,tie_weights=True,truncate_context=False"
    )
    assert parse(arguments_of(text)) == Arguments(
        pretrained="somewhere",
        device="cuda:0",
        device_map="cuda:0",
        batch_size=4,
        attn_implementation="sdpa",
        chat_template="v1",
        use_cache=False,
    )
    assert parse({"batch_size": "auto", "max_batch_size": 64}).batch_size == 64
    assert parse({"batch_size": "auto:4"}).batch_size == 16


def test_the_command_line_is_completed_where_lmms_eval_reads_it(monkeypatch):
    given = said(monkeypatch, BASELINE="OURS", SUBSET_RATIO="0.098", LAYER_INDEX="0")
    for argv in (
        ["--model", "llava", "--model_args", BASE, "--tasks", "pope"],
        ["eval", "--model=llava", f"--model_args={BASE}", "--tasks", "pope"],
    ):
        whole = translated(argv, given)
        assert whole[: len(argv)] == argv
        flag, text = whole[len(argv) :]
        assert flag == "--model_args"
        assert text == f"{BASE},method=otprune,layer=0,keep_ratio=0.098"
        assert translated(whole, given) == whole
    assert translated(["--model", "llava"], Environment()) == ["--model", "llava"]


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"RANK": "x"}, "RANK must be a whole number, as launchers set it, got 'x'"),
        ({"RANK": "²", "WORLD_SIZE": "2"}, "RANK must be a whole number"),
        ({"RANK": "-1", "WORLD_SIZE": "2"}, "RANK must be a whole number"),
        ({"RANK": "0"}, "RANK=0 needs WORLD_SIZE"),
        ({"LOCAL_RANK": "0"}, "LOCAL_RANK=0 needs WORLD_SIZE"),
        ({"WORLD_SIZE": "4"}, "WORLD_SIZE=4 needs RANK"),
        ({"RANK": "4", "WORLD_SIZE": "4"}, "RANK must be below WORLD_SIZE=4, got 4"),
        ({"RANK": "0", "WORLD_SIZE": "2", "MASTER_PORT": "auto"}, "MASTER_PORT must be a whole"),
    ],
)
def test_what_no_launcher_sets_is_refused(monkeypatch, variables, message):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=message):
        read_environment()


def test_what_launchers_set_is_taken(monkeypatch):
    for name, value in {"RANK": "1", "LOCAL_RANK": "0", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    assert read_environment().rank == 1
