"""The page's ten lines, the helper behind them, and the command line."""

import re

import pytest
from typer.testing import CliRunner

from helpers import PARITY, ROOT, V15, loaded
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
