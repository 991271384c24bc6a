"""The recipe of llava-mini: scenes, questions, lessons, training."""

import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from captions import captions
from drawings import COLOURS, KINDS
from formats import Turn, choose, lesson, open_ended
from naming import placing_loss, side_ids
from network import Learner
from optimisers import Muon, orthogonalised
from packing import IGNORED, Packer
from questions import FAMILIES, YES_NO, plural
from safetensors.torch import load_file, save_file
from scenes import SPLITS, UNSEEN, draw_scene, make_scene
from shipping import assemble
from training import Stage

from llava.chat import make_prompt
from llava.constants import IMAGE_TOKEN_INDEX
from llava.mm_utils import tokenizer_image_token
from llava.tokenizer import LlavaTokenizer

ROOT = Path(__file__).parents[3]
RECIPE = ROOT / "scripts" / "mini"
CHECKPOINT = ROOT / "LLaVA" / "checkpoints" / "llava-mini"
SINGULAR = {plural(kind): kind for kind in KINDS}


@pytest.fixture(scope="module")
def tokenizer() -> LlavaTokenizer:
    return LlavaTokenizer(CHECKPOINT / "tokenizer.model")


def scenes(split: str, count: int = 60):
    return [make_scene(split, number) for number in range(count)]


def test_a_scene_and_its_image_are_fixed_by_split_and_number():
    for number in (0, 7):
        one, two = make_scene("train", number), make_scene("train", number)
        assert one == two
        assert draw_scene(one, 64).tobytes() == draw_scene(two, 64).tobytes()
    pictures = {draw_scene(make_scene(split, 3), 64).tobytes() for split in SPLITS}
    assert len(pictures) == len(SPLITS)


def test_objects_lie_inside_and_apart():
    for scene in scenes("check"):
        assert 1 <= len(scene.things) <= 6
        for thing in scene.things:
            assert thing.radius < min(thing.x, thing.y, 1 - thing.x, 1 - thing.y)
            for other in scene.things:
                if other is not thing:
                    apart = np.hypot(thing.x - other.x, thing.y - other.y)
                    assert apart > thing.radius + other.radius


def test_unseen_pairs_appear_only_where_they_are_asked_for():
    def pairs(scene):
        return {(thing.colour, thing.kind) for thing in scene.things}

    for number in range(300):
        assert not pairs(make_scene("train", number)) & UNSEEN
        assert pairs(make_scene("benchmark", number, unseen="only")) <= UNSEEN
        assert pairs(make_scene("benchmark", number, unseen="some")) & UNSEEN


def truth(text: str, scene) -> str | None:
    """Answer a question by reading its words; a second way, apart from the one that asked."""
    names = Counter(f"{thing.colour} {thing.kind}" for thing in scene.things)
    of = {f"{t.colour} {t.kind}": t for t in scene.things}
    pair = rf"({'|'.join(COLOURS)}) ({'|'.join(KINDS)})"
    if found := re.fullmatch(rf"Is there an? {pair} in the image\?", text):
        return "Yes" if names[" ".join(found.groups())] else "No"
    if found := re.fullmatch(r"How many (\w+) are in the image\?", text):
        kinds = [thing.kind for thing in scene.things]
        return str(len(kinds) if found[1] == "objects" else kinds.count(SINGULAR[found[1]]))
    if found := re.fullmatch(r"How many (\w+) objects are in the image\?", text):
        return str(sum(thing.colour == found[1] for thing in scene.things))
    if found := re.fullmatch(rf"Where is the {pair}\?", text):
        thing = of[" ".join(found.groups())]
        return f"{'top' if thing.y < 0.5 else 'bottom'} {'left' if thing.x < 0.5 else 'right'}"
    if found := re.fullmatch(rf"Is the {pair} above or below the {pair}\?", text):
        a, b = of[f"{found[1]} {found[2]}"], of[f"{found[3]} {found[4]}"]
        return "above" if a.y < b.y else "below"
    if found := re.fullmatch(r"What color is the (\w+)\?", text):
        (thing,) = (t for t in scene.things if t.kind == found[1])
        return thing.colour
    if found := re.fullmatch(r"What is the (\w+) object\?", text):
        (thing,) = (t for t in scene.things if t.colour == found[1])
        return thing.kind
    if found := re.fullmatch(r"Are there more (\w+) than (\w+) in the image\?", text):
        kinds = [thing.kind for thing in scene.things]
        a, b = (kinds.count(SINGULAR[word]) for word in found.groups())
        return "Yes" if a > b else "No"
    if found := re.fullmatch(r"Is there a total of (\d) (\w+) in the image\?", text):
        kinds = [thing.kind for thing in scene.things]
        kind = SINGULAR.get(found[2], found[2])
        return "Yes" if kinds.count(kind) == int(found[1]) else "No"
    return None


def test_answers_are_true():
    rng = np.random.default_rng(0)
    checked = Counter()
    for scene in scenes("train", 150):
        for name, family in FAMILIES.items():
            question = family(scene, rng)
            if question is None:
                continue
            assert question.answer in question.choices
            told = truth(question.text, scene)
            if told is not None:
                assert question.answer == told, (question, scene)
                checked[name] += 1
    assert {
        "exists",
        "count",
        "where",
        "relation",
        "colour",
        "kind",
        "more_yes",
        "count_yes",
    } <= set(checked)


def test_yes_and_no_are_about_as_frequent():
    rng = np.random.default_rng(1)
    for name, family in FAMILIES.items():
        asked = [family(scene, rng) for scene in scenes("train", 400)]
        said = [q.answer for q in asked if q is not None and q.choices == YES_NO]
        if said:
            assert 0.3 < said.count("Yes") / len(said) < 0.7, name


def test_captions_name_what_is_there_and_nothing_else():
    for scene in scenes("check"):
        told = captions(scene)
        assert len(set(told)) == 5
        for text in told:
            words = re.findall(r"\w+", text.lower())
            kinds = {SINGULAR.get(word, word) for word in words} & set(KINDS)
            assert kinds <= {thing.kind for thing in scene.things}
            assert scene.ground in words


def test_options_hold_the_answer_once():
    rng = np.random.default_rng(2)
    for scene in scenes("train"):
        question = FAMILIES["ground"](scene, rng)
        turn = choose(question, rng, "seedbench")
        lines = dict(line.split(". ") for line in turn.prompt.split("\n")[1:5])
        assert lines[turn.answer] == question.answer
        assert len(set(lines.values())) == 4


def test_a_turn_among_others_is_answered_as_if_it_were_alone(tokenizer):
    torch.manual_seed(0)
    learner = Learner(tokenizer.vocab_size, torch.randn(384), torch.rand(384) + 0.5).eval()
    scene = make_scene("check", 5)
    turns = lesson(scene, np.random.default_rng(0), 6, 2, 1)
    turns.append(open_ended(FAMILIES["count"](scene, np.random.default_rng(0))))
    other = lesson(make_scene("check", 6), np.random.default_rng(0), 2, 0, 0)
    packer = Packer(tokenizer, 256, 256)
    features = torch.randn(2, 256, 384)
    with torch.no_grad():
        logits, labels = learner(features, packer.pack([turns, other]))
        at = 0
        for turn in turns:
            alone, right = learner(features[:1], packer.pack([[turn]]))
            assert torch.equal(labels[at : at + len(right)], right)
            torch.testing.assert_close(logits[at : at + len(right)], alone, atol=1e-5, rtol=0)
            at += len(right)


def test_what_is_taught_is_what_the_whole_model_is_asked(tokenizer, tmp_path):
    """The packaged model, on the prompt that a benchmark makes, gives the learner's logits."""
    torch.manual_seed(1)
    stored = load_file(CHECKPOINT / "model.safetensors")
    prefix = "model.vision_tower.vision_tower."
    tower = {k.removeprefix(prefix): v for k, v in stored.items() if k.startswith(prefix)}
    save_file(tower, tmp_path / "tower.safetensors")
    learner = Learner(tokenizer.vocab_size, torch.randn(384), torch.rand(384) + 0.5).eval()
    model = assemble(learner, tmp_path / "tower.safetensors", tokenizer.vocab_size)
    pixels = torch.randn(1, 3, 224, 224)
    turn = Turn("x", "Is there a red star in the image?\nAnswer", "Yes")
    ids = tokenizer_image_token(make_prompt(turn.prompt, 1), tokenizer, IMAGE_TOKEN_INDEX)
    answer = tokenizer("Yes", add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        features = model.get_vision_tower()(pixels)
        taught, labels = learner(features, Packer(tokenizer, 256, 256).pack([[turn]]))
        asked = model(torch.tensor([[*ids, *answer]]), images=pixels).logits[0, -len(answer) - 1 :]
    assert labels.tolist() == [*answer, tokenizer.eos_token_id]
    torch.testing.assert_close(asked, taught, atol=1e-5, rtol=0)


def test_fewer_visual_tokens_are_spread_over_the_places_of_all(tokenizer):
    turns = lesson(make_scene("check", 5), np.random.default_rng(0), 4, 0, 0)
    few, many = (Packer(tokenizer, n, 256).pack([turns]) for n in (64, 256))
    places = few.positions[0, few.visual].reshape(8, 8) - len(Packer(tokenizer, 64, 256).prefix)
    assert places.tolist() == [[32 * row + 2 * column for column in range(8)] for row in range(8)]
    shift = 256 - 64
    assert torch.equal(few.positions[0, few.visual.stop :], many.positions[0, many.visual.stop :])
    assert torch.equal(few.labels[0, few.visual.stop :], many.labels[0, few.visual.stop + shift :])
    assert (few.labels != IGNORED).sum() >= 2 * len(turns)


def test_newton_schulz_gives_nearly_orthogonal_matrices():
    torch.manual_seed(0)
    for shape in ((3, 16, 16), (2, 8, 32), (2, 32, 8)):
        matrices = torch.randn(shape)
        values = torch.linalg.svdvals(orthogonalised(matrices))
        assert values.min() > 0.3
        assert values.max() < 1.4
        u, _, vh = torch.linalg.svd(matrices, full_matrices=False)
        # Same singular vectors: in their basis the result is diagonal.
        inside = u.mT @ orthogonalised(matrices) @ vh.mT
        off = inside - torch.diag_embed(inside.diagonal(dim1=1, dim2=2))
        assert off.abs().max() < 1e-3


def test_muon_finds_a_matrix():
    torch.manual_seed(0)
    wanted = torch.randn(6, 4)
    matrix = torch.nn.Parameter(torch.zeros(6, 4))
    optimiser = Muon([matrix], weight_decay=0.0)
    for step in range(300):
        (matrix - wanted).square().sum().backward()
        for group in optimiser.param_groups:
            group["lr"] = 0.05 * (1 - step / 300)
        optimiser.step()
        optimiser.zero_grad()
    assert (matrix - wanted).abs().max() < 0.05


def test_left_and_right_are_asked_of_objects_clearly_on_one_side():
    rng, said = np.random.default_rng(2), Counter()
    for scene in scenes("train", 200):
        question = FAMILIES["side"](scene, rng)
        if question is None:
            continue
        name = re.fullmatch(r"Is the (.+) to the left or to the right\?", question.text)[1]
        (x,) = [thing.x for thing in scene.things if f"{thing.colour} {thing.kind}" == name]
        assert abs(x - 0.5) > 0.03
        assert question.answer == ("left" if x < 0.5 else "right")
        said[question.answer] += 1
    assert min(said["left"], said["right"]) > 40


def test_a_patch_that_leans_to_its_own_sides_has_no_placing_loss(tokenizer):
    sides = side_ids(tokenizer)
    left, right, top, bottom = sides
    head = torch.zeros(max(sides) + 1, 4)
    head[right, 0], head[left, 0], head[bottom, 1], head[top, 1] = 40, -40, 40, -40
    place = (torch.arange(4) + 0.5) / 4 - 0.5
    x, y = place.repeat(4), place.repeat_interleave(4)
    patches = torch.stack([x.sign(), y.sign(), torch.zeros(16), torch.zeros(16)], 1)[None]
    assert placing_loss(patches, sides, head) < 1e-6
    mirrored = patches * torch.tensor([-1.0, 1, 1, 1])
    assert placing_loss(mirrored, sides, head) > 10
    assert placing_loss(patches, sides, torch.zeros_like(head)).item() == pytest.approx(np.log(2))


def test_the_log_of_the_checkpoint_is_of_the_stages_that_are_listed():
    stages = [Stage(**one) for one in json.loads((RECIPE / "stages.json").read_text())]
    ends = np.cumsum([stage.steps for stage in stages])
    log = (CHECKPOINT / "training_log.jsonl").read_text().splitlines()
    lines = [json.loads(line) for line in log]
    assert lines[-1]["step"] == ends[-1]
    for line in lines:
        stage = stages[int(np.searchsorted(ends, line["step"]))]
        assert line["stage"] == stage.name, line["step"]
