"""qwen-mini: the checkpoint, and the recipe's ways from DINOv2 and Llama to Qwen3-VL."""

import io
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from examine import turns_of
from features import picture
from formats import SHORT, Turn, lesson
from naming import side_ids, word_ids
from packing import IGNORED
from PIL import Image
from qwen import QwenLearner
from qwen_answers import QwenReader
from qwen_shipping import assemble
from qwen_tower import CHANNELS, HEADS, Student, pixels, read_teacher, reordering, teacher_states
from qwen_training import AFTER, ASKED, BEFORE, QwenPacker
from qwen_vocabulary import continued, encoder, old_pieces, origins
from scenes import make_scene
from transformers import AutoConfig, PreTrainedTokenizerBase, Qwen3VLForConditionalGeneration
from transformers.models.qwen3_vl.modeling_qwen3_vl import apply_rotary_pos_emb_vision

from llava.tokenizer import LlavaTokenizer
from otprune.hf import pruned

ROOT = Path(__file__).parents[3]
LLAVA = ROOT / "LLaVA" / "checkpoints" / "llava-mini"
SLICES = ROOT / "lmms_eval" / "otprune_lmms" / "tasks" / "mini_data"
CHECKPOINT = ROOT / "lmms_eval" / "checkpoints" / "qwen-mini"


@pytest.fixture(scope="module")
def reader() -> QwenReader:
    return QwenReader(CHECKPOINT)


@pytest.fixture(scope="module")
def tokenizer(reader) -> PreTrainedTokenizerBase:
    return reader.tokenizer


def test_the_checkpoint_is_a_small_qwen3_vl(reader):
    config = AutoConfig.from_pretrained(CHECKPOINT)
    assert config.model_type == "qwen3_vl"
    assert type(reader.model) is Qwen3VLForConditionalGeneration
    assert sum(file.stat().st_size for file in CHECKPOINT.iterdir()) < 40e6
    assert config.vision_config.deepstack_visual_indexes == [2, 5]
    deepstack = reader.model.model.visual.deepstack_merger_list
    assert all(merger.linear_fc2.weight.abs().max() > 0 for merger in deepstack)
    assert reader.model.generation_config.eos_token_id[0] == reader.tokenizer.eos_token_id
    assert reader.tokenizer.eos_token == "<|im_end|>"


def test_a_picture_has_64_to_256_visual_tokens(reader):
    sides = [(256, 256), (640, 480), (60, 60)]
    pictures = [Image.new("RGB", size) for size in sides]
    grids = reader.processor(pictures, return_tensors="pt")["image_grid_thw"]
    assert grids.tolist() == [[1, 16, 16], [1, 13, 18], [1, 8, 8]]


def test_the_chat_template_gives_the_prompt_of_training(tokenizer):
    turn = Turn("exists", "Is there a red cup in the image?", "No")
    content = [{"type": "image"}, {"type": "text", "text": turn.prompt}]
    system = {"role": "system", "content": "You are a helpful assistant."}
    text = tokenizer.apply_chat_template(
        [system, {"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
    )
    assert text == f"{BEFORE}<|image_pad|>{AFTER}{turn.prompt}{ASKED}"
    packer = QwenPacker(tokenizer, 4)
    packed = packer.pack([[turn]])
    whole = tokenizer(f"{text}No<|im_end|>")["input_ids"]
    pad = tokenizer.convert_tokens_to_ids("<|image_pad|>")
    assert [one for one in packed.ids[0].tolist() if one] == [one for one in whole if one != pad]
    taught = packed.labels[packed.labels != IGNORED]
    assert tokenizer.decode(taught) == "No<|im_end|>"


def test_it_answers_questions_of_the_slices(reader):
    right = []
    for task, answer in (("pope", str.capitalize), ("gqa", str)):
        (file,) = (SLICES / task).glob("*.parquet")
        for row in pq.read_table(file).slice(0, 12).to_pylist():
            image = Image.open(io.BytesIO(row["image"]["bytes"])).convert("RGB")
            turn = Turn(task, row["question"] + SHORT, answer(row["answer"]))
            right.append(reader.answers(image, [turn], 8) == [turn.answer])
    assert np.mean(right) > 0.9


def asked(scenes: range) -> list[tuple[int, list[tuple[str, Turn]]]]:
    """Questions of `examine` about scenes that training never shows, without captions."""
    made = [(n, turns_of(make_scene("check", n), np.random.default_rng([3, n]))) for n in scenes]
    return [(n, [one for one in turns if one[0] != "caption"]) for n, turns in made]


def share_right(reader: QwenReader, scenes: range) -> float:
    right = []
    for number, turns in asked(scenes):
        said = reader.answers(picture(make_scene("check", number)), [turn for _, turn in turns], 8)
        right += [reply == turn.answer for reply, (_, turn) in zip(said, turns, strict=True)]
    return float(np.mean(right))


def test_it_answers_and_still_does_with_a_quarter_of_the_tokens(reader):
    scenes = range(21_000, 21_010)
    assert share_right(reader, scenes) > 0.9
    with pruned(reader.model, "otprune", keep_ratio=0.25) as trace:
        share = share_right(reader, range(21_000, 21_004))
    assert share > 0.6
    assert set(trace.visual) == {256}
    assert {len(kept) for kept in trace.kept[0]} == {64}


def test_training_reads_prompts_as_the_model_does(reader, tokenizer):
    learner = QwenLearner(tokenizer.pad_token_id)
    state = reader.model.model.state_dict()
    learner.load_state_dict(
        {name: state.get(name, state.get(f"visual.{name}")) for name in learner.state_dict()}
    )
    image = picture(make_scene("check", 5))
    turns = lesson(make_scene("check", 5), np.random.default_rng(0), 3, 1, 1)
    inputs = reader.processor([image], return_tensors="pt")
    visual = reader.model.model.visual
    with torch.no_grad():
        states: list[torch.Tensor] = []
        hooks = [
            visual.blocks[block].register_forward_hook(lambda *a: states.append(a[2]))
            for block in (2, 5, 8)
        ]
        visual(inputs["pixel_values"], grid_thw=inputs["image_grid_thw"])
        for hook in hooks:
            hook.remove()
        logits, _ = learner.eval()(
            torch.stack(states, 1)[None], QwenPacker(tokenizer, 256).pack([turns])
        )
        last = -1
        for turn in turns:
            text = (
                f"{BEFORE}{'<|image_pad|>' * 256}{AFTER}{turn.prompt}{ASKED}{turn.answer}<|im_end|>"
            )
            batch = tokenizer(text, return_tensors="pt")
            types = (batch["input_ids"] == reader.model.config.image_token_id).long()
            whole = reader.model(**batch, **inputs, mm_token_type_ids=types).logits[0]
            answer = len(tokenizer(f"{turn.answer}<|im_end|>")["input_ids"])
            mine = logits[last + 1 : last + 1 + answer]
            torch.testing.assert_close(mine, whole[-answer - 1 : -1], atol=1e-3, rtol=1e-3)
            last += answer
    assert last + 1 == len(logits)


def test_old_pieces_are_kept_and_give_the_same_ids():
    old = old_pieces(LLAVA / "tokenizer.model")
    fast, slow = encoder(old), LlavaTokenizer(LLAVA / "tokenizer.model")
    rng = np.random.default_rng(5)
    for number in range(20):
        for turn in lesson(make_scene("check", number), rng, 8, 3, 1, 1):
            for text in (turn.prompt, turn.answer, "café  7\n"):
                # A special token in front, as the dummy prefix is added at a text's start only.
                assert (
                    fast.encode(text).ids
                    == slow(f"</s>{text}", add_special_tokens=False)["input_ids"][1:]
                )
                assert fast.decode(fast.encode(text).ids) == text


def test_more_pieces_make_one_of_each_answer(tokenizer):
    old = old_pieces(LLAVA / "tokenizer.model")
    new = continued(old, scenes=60)
    assert new.names[: len(old.names)] == old.names
    assert len(origins(new.names, old)) == len(new.names)
    words = [
        w for w in ("red", "Yes", "triangle", "left", "3") if len(encoder(new).encode(w).ids) != 1
    ]
    assert not words
    assert tokenizer.get_vocab()["\n"] == len(old.names)
    assert len(set(word_ids(tokenizer, " ").values())) == 28
    assert len(set(side_ids(tokenizer, " "))) == 4


def test_reordered_queries_and_keys_have_the_same_products_and_turn_little():
    torch.manual_seed(0)
    mix = torch.randn(64, 64) * torch.logspace(0, -2, 64)
    queries, keys = torch.randn(500, 64) @ mix, torch.randn(500, 64) @ mix
    ask, find = reordering(queries, keys)
    plain = queries @ keys.T
    torch.testing.assert_close(queries @ ask.T @ (keys @ find.T).T, plain, atol=0.02, rtol=1e-3)

    def turned(q, k):
        places = (
            torch.stack(torch.meshgrid(torch.arange(20), torch.arange(25), indexing="ij"))
            .view(2, -1)
            .T
        )
        angles = (places[:, :, None] * 1e4 ** (-torch.arange(16) / 16)).flatten(1)
        cos, sin = (torch.cat([f(angles)] * 2, 1) for f in (torch.cos, torch.sin))
        q, k = apply_rotary_pos_emb_vision(q[:, None], k[:, None], cos, sin)
        return float((q[:, 0] @ k[:, 0].T - plain).norm() / plain.norm())

    assert turned(queries @ ask.T, keys @ find.T) < 0.3 * turned(queries, keys)


def test_the_student_begins_as_the_teacher_but_for_its_class_token():
    teacher = read_teacher(LLAVA)
    pictures = np.stack([np.asarray(picture(make_scene("check", number))) for number in range(4)])
    values = pixels(pictures, 16, 16)
    student = Student(teacher, values, 128)
    assert student.tower.config.hidden_size == CHANNELS == 64 * HEADS
    with torch.no_grad():
        wanted, given = teacher_states(teacher, values), student(values)
        for block, most in ((0, 0.1), (8, 0.6)):
            scale = wanted[block].std((0, 1))
            assert ((wanted[block] - given[block]) / scale).square().mean() < most
        student.round_weights()
        again = student(values)
        assert (again[8] - given[8]).norm() < 0.05 * given[8].norm()
        model = assemble(QwenLearner(1628), student.folded())
        flat = values.view(4, 3, 1, 16, 14, 16, 14).permute(0, 3, 5, 1, 2, 4, 6)
        flat = flat.expand(-1, -1, -1, -1, 2, -1, -1).reshape(4 * 256, -1)
        seen = model.model.visual(flat, grid_thw=torch.tensor([[1, 16, 16]] * 4))
    torch.testing.assert_close(
        seen.last_hidden_state.view(4, 256, -1), again[8], atol=2e-3, rtol=1e-3
    )
