"""The page's ten lines, the helper behind them, and the command line."""

import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

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
        ([str(V15), "Q", "--image", "no.jpg", "--device", "cpu"], "no.jpg cannot be read"),
        ([str(V15), "Q", "--keep-ratio", "0.1"], "need --method"),
        ([str(V15), "Q", "--device", "gpu"], "--device must be cpu, cuda, cuda:N or mps"),
        ([str(V15), "Q", "--device", "cuda:99"], "--device must be"),
        ([str(V15), "Q", "--method", "otprune"], "exactly one of keep_ratio and k"),
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
