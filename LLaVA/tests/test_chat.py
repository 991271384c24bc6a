"""The page's ten lines, the helper behind them, and the command line."""

import io
import json
import re
import socket
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from typer.testing import CliRunner

import llava.hub
from helpers import PARITY, ROOT, V15, load, loaded
from llava.__main__ import app
from llava.chat import ask, make_prompt
from llava.images import ImageError, open_image
from otprune.pruning import Trace, make_pruning

PICTURE = PARITY / "images" / "land.png"
QUESTION = "What is in this image? Describe the picture briefly."
ANSWER = "g shoj n n n n n W n n n"


def test_the_python_of_the_page_runs(monkeypatch, capsys):
    page = (ROOT / "README.md").read_text()
    (block,) = re.findall(r"```python\n(.*?)```", page, flags=re.S)
    assert len([line for line in block.splitlines() if line.strip()]) <= 10
    block = block.replace('"liuhaotian/llava-v1.5-7b"', repr(str(V15)))
    block = block.replace('"dog.jpg"', repr(str(PICTURE)))
    names: dict = {"__name__": "page"}
    exec(compile(block, "README.md", "exec"), names)
    # The tiny model has four layers, so layer 2 is there.
    first, second, third = capsys.readouterr().out.splitlines()[-3:]
    assert len({first, second, third}) == 3


@pytest.mark.parametrize(
    "picture", [PICTURE, str(PICTURE), PICTURE.read_bytes(), open_image(PICTURE)]
)
def test_a_picture_and_a_question_get_the_original_s_answer(picture):
    llava = loaded("checkpoints/tiny-llava-v1.5")
    assert ask(llava, QUESTION, [picture], max_new_tokens=12) == ANSWER


@pytest.mark.parametrize(
    "images",
    [str(PICTURE), PICTURE, PICTURE.read_bytes(), open_image(PICTURE),
     np.asarray(open_image(PICTURE)), (PICTURE,), iter([PICTURE])],
)  # fmt: skip
def test_one_image_needs_no_list(images):
    llava = loaded("checkpoints/tiny-llava-v1.5")
    assert ask(llava, QUESTION, images, max_new_tokens=2) == ANSWER[:5]


def test_several_images_may_be_of_several_kinds():
    llava, trace = loaded("checkpoints/tiny-llava-v1.5"), Trace()
    grey = np.zeros((20, 30), dtype=np.uint8)
    clear = np.zeros((20, 30, 4), dtype=np.uint8)
    ask(llava, "Q", [PICTURE, grey, grey[..., None], clear], trace=trace, max_new_tokens=1)
    assert trace.visual == [576] * 4


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ("dog.jpg", "dog.jpg cannot be read"),
        (5, "image 0 must be a path, bytes, a PIL image or an array, got int"),
        ([PICTURE, 5], "image 1 must be a path"),
        (np.zeros((4, 4, 3)), r"must be an array of uint8 .*, got float64 \[4, 4, 3\]"),
        (np.zeros((2, 4, 4, 3), dtype=np.uint8), r"got uint8 \[2, 4, 4, 3\]"),
        (np.zeros((4, 0, 3), dtype=np.uint8), r"has no pixels: its shape is \[4, 0, 3\]"),
    ],
)
def test_what_is_no_image_is_said(images, message):
    with pytest.raises(ImageError, match=message):
        ask(loaded("checkpoints/tiny-llava-v1.5"), "Q", images)


def test_a_method_may_be_given_by_its_name():
    llava = loaded("checkpoints/tiny-llava-v1.5")

    def kept(*layers, **settings):
        trace = Trace()
        ask(llava, "Q", PICTURE, trace=trace, max_new_tokens=1, **settings)
        return [len(trace.kept[layer][0]) for layer in layers] or trace.kept

    assert kept(0, pruning="otprune") == [56]
    assert kept(0, pruning="divprune", keep_ratio=0.5) == [288]
    assert kept(2, pruning="otprune", k=9, layer=2) == [9]
    # A layer pruner has a schedule of its own: FastV keeps half from layer 2 on.
    assert kept(2, pruning="fastv") == [288]
    assert kept(pruning=None) == {}
    with pytest.raises(ValueError, match="unknown pruner 'otprun'"):
        kept(pruning="otprun")
    with pytest.raises(ValueError, match="go with a method's name as pruning"):
        kept(k=9)


def test_a_name_where_a_pruning_belongs_is_said():
    model = loaded("checkpoints/tiny-llava-v1.5")[1]
    ids = torch.tensor([[1, 20]])
    for call in (model, model.generate, lambda _, pruning: model.check_pruning(pruning)):
        with pytest.raises(TypeError, match="pruning must be a Pruning, such as .*got 'otprune'"):
            call(ids, pruning="otprune")


def test_an_answer_from_logits_that_are_not_finite_is_an_error():
    llava = load(V15)
    torch.nn.init.constant_(llava[1].lm_head.weight[7], float("inf"))
    with pytest.raises(ValueError, match="logits must be finite numbers, got NaN or infinity"):
        ask(llava, "Q", PICTURE, max_new_tokens=2)


def test_answers_can_be_pruned_and_traced():
    llava, trace = loaded("checkpoints/tiny-llava-v1.5"), Trace()
    pruned = ask(
        llava, QUESTION, [PICTURE], max_new_tokens=12, trace=trace,
        pruning=make_pruning("otprune", keep_ratio=0.098),
    )  # fmt: skip
    assert pruned != ANSWER
    assert [len(kept) for kept in trace.kept[0]] == [56]
    assert ask(llava, "Say yes.", max_new_tokens=3) == ask(llava, "Say yes.", max_new_tokens=3)


def test_images_stand_in_front_unless_the_question_places_them():
    assert make_prompt("Q", 2).endswith("USER: <image>\n<image>\nQ ASSISTANT:")
    assert make_prompt("A <image> or B <image>?", 2, "plain") == "A <image> or B <image>?\n"
    assert make_prompt("Q", 0, "llava_v0").endswith("###Human: Q###Assistant:")
    with pytest.raises(ValueError, match="the question places 1 images, got 2"):
        make_prompt("See <image>", 2)
    marked = SimpleNamespace(mm_use_im_start_end=True)
    for question in ("<image> or <image>?", "<im_start><image><im_end> or <image>?"):
        assert make_prompt(question, 2, "plain", marked) == (
            "<im_start><image><im_end> or <im_start><image><im_end>?\n"
        )
    assert make_prompt("Q", 1, "plain", marked) == "<im_start><image><im_end>\nQ\n"
    with pytest.raises(ValueError, match="template must be one of v1, .*got 'vicuna'"):
        make_prompt("Q", 1, "vicuna")
    with pytest.raises(ImageError, match="no.jpg cannot be read"):
        ask(loaded("checkpoints/tiny-llava-v1.5"), "Q", ["no.jpg"])


def test_the_command_answers_and_says_what_it_kept():
    arguments = [
        str(V15), QUESTION, "--image", str(PICTURE), "--device", "cpu", "--method", "otprune",
        "--keep-ratio", "0.098", "--max-new-tokens", "4",
    ]  # fmt: skip
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert "visual tokens kept at layer 0: 56 of 576" in done.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere", "Q"], "nowhere is no folder and no hub id"),
        (["", "Q"], "model must be a folder or a hub id, got ''"),
        (["nowhere", "Q", "--image", "no.jpg", "--device", "cpu"], "no.jpg cannot be read"),
        (["nowhere", "Q", "--image", ""], "'--image': it must name a file, got nothing"),
        ([str(V15), "Q", "--keep-ratio", "0.1"], "need --method"),
        ([str(V15), "Q", "--device", "gpu"], "--device must be cpu, cuda, cuda:N or mps"),
        ([str(V15), "Q", "--device", "cuda:99"], "--device must be"),
        ([str(V15), "Q", "--method", "otprun", "--k", "3"], "unknown pruner 'otprun'"),
        ([str(V15), "Q", "--method", "otprune", "--keep-ratio", "9.8"], "must be in (0, 1]"),
        (
            [
                str(V15),
                "Q",
                "--method",
                "otprune",
                "--k",
                "3",
                "--layer",
                "9",
                "--device",
                "cpu",
            ],
            "layer must be in 0..3",
        ),
    ],
)
def test_the_command_answers_a_mistake_in_a_sentence(arguments, message, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")  # the message on one line
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 2
    assert message in done.stderr


@pytest.mark.parametrize(("method", "kept"), [("otprune", 56), ("pooling", 56), ("fastv", 288)])
def test_without_a_budget_the_command_keeps_what_ask_keeps(method, kept):
    trace = Trace()
    llava_v15 = loaded("checkpoints/tiny-llava-v1.5")
    answer = ask(llava_v15, QUESTION, PICTURE, pruning=method, trace=trace, max_new_tokens=4)
    arguments = [str(V15), QUESTION, "--image", str(PICTURE), "--device", "cpu"]
    done = CliRunner().invoke(app, [*arguments, "--method", method, "--max-new-tokens", "4"])
    assert done.exit_code == 0, done.output
    ((layer, (numbers,)),) = trace.kept.items()
    assert len(numbers) <= kept
    said = f"{answer}\nvisual tokens kept at layer {layer}: {len(numbers)} of 576\n"
    assert done.stdout == said


EVIL = "[low] \x1b]0;title\x07\x1b[31mred\x9b5m :dog: \u202egnp\r \u2028end"
SEEN = r"[low] \x1b]0;title\x07\x1b[31mred\x9b5m :dog: \u202egnp\r \u2028end"


def test_neither_an_answer_nor_an_error_gives_the_terminal_orders(monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setattr("llava.chat.ask", lambda *_, **__: EVIL)
    done = CliRunner().invoke(app, [str(V15), "Q", "--device", "cpu"], color=True)
    assert (done.exit_code, done.stdout) == (0, f"{SEEN}\n")
    monkeypatch.undo()
    monkeypatch.setenv("COLUMNS", "300")
    for arguments in ([str(V15), "Q", "--image", f"{EVIL}.jpg"], [f"./{EVIL}", "Q"]):
        done = CliRunner().invoke(app, [*arguments, "--device", "cpu"])
        assert done.exit_code == 2
        assert SEEN in done.stderr


def test_what_the_terminal_s_encoding_lacks_is_replaced(monkeypatch):
    monkeypatch.setattr("llava.chat.ask", lambda *_, **__: "ein Bär – 熊")
    written = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(written, encoding="latin-1"))
    app([str(V15), "Q", "--device", "cpu"], standalone_mode=False)
    sys.stdout.flush()
    assert written.getvalue() == "ein Bär ? ?\n".encode("latin-1")


@pytest.fixture
def no_hub(monkeypatch, tmp_path):
    """A hub at a port where nobody listens, and an empty cache."""
    llava.hub._reason.cache_clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("COLUMNS", "300")
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{free.getsockname()[1]}")
        yield free
    llava.hub._reason.cache_clear()


def test_a_hub_that_cannot_be_reached_is_a_sentence_at_once(no_hub, tmp_path):
    began = time.monotonic()
    done = CliRunner().invoke(app, ["someone/model", "Q", "--device", "cpu"])
    assert done.exit_code == 2
    assert (
        "not in the cache and could not be fetched from the hub (Connection refused)" in done.stderr
    )
    assert time.monotonic() - began < 10


def test_a_hub_that_never_answers_costs_its_patience_once(no_hub, monkeypatch):
    monkeypatch.setattr(llava.hub, "PATIENCE", 0.2)
    no_hub.listen()
    began = time.monotonic()
    for _ in range(5):
        done = CliRunner().invoke(app, ["someone/model", "Q", "--device", "cpu"])
        assert "could not be fetched from the hub (timed out)" in done.stderr
    assert time.monotonic() - began < 10


def test_a_tower_that_is_on_the_hub_alone_is_a_sentence_at_once_too(no_hub, tmp_path):
    (tmp_path / "model").mkdir()
    for file in V15.iterdir():
        if file.name != "config.json":
            (tmp_path / "model" / file.name).symlink_to(file)
    config = json.loads((V15 / "config.json").read_text()) | {"mm_vision_tower": "someone/tower"}
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    began = time.monotonic()
    done = CliRunner().invoke(app, [str(tmp_path / "model"), "Q", "--device", "cpu"])
    assert done.exit_code == 2
    assert "someone/tower" in done.stderr
    assert time.monotonic() - began < 10
