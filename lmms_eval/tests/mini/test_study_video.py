"""scripts/study_video.py: its clips and questions, what is kept of a clip, and its statistics."""

import math
from types import SimpleNamespace

import clips
import numpy as np
import pandas as pd
import pytest
import study_video
import torch

from otprune import make_pruner

VIDEO = SimpleNamespace(clips=clips, study=study_video)


@pytest.fixture
def video():
    return VIDEO


def test_a_clip_follows_from_its_number_and_one_object_comes_crosses_and_leaves(video):
    for number in range(30):
        clip = video.clips.make_clip(number)
        assert clip == video.clips.make_clip(number)
        there = [t for t, thing in enumerate(clip.moving) if thing is not None]
        assert there == list(range(there[0], there[-1] + 1))
        assert len(there) in (3, 4)
        assert there[0] > 0
        assert there[-1] < len(clip.moving) - 1
        steps = np.diff([clip.moving[t].x for t in there])
        assert (steps > 0).all() or (steps < 0).all()
        mover = clip.mover
        assert all(t.kind != mover.kind and t.colour != mover.colour for t in clip.still.things)


def test_frames_differ_by_grain_alone_but_for_the_object(video):
    clip = video.clips.make_clip(3)
    frames = [np.asarray(f, dtype=float) for f in video.clips.draw_clip(clip)]
    first = next(t for t, thing in enumerate(clip.moving) if thing is not None)
    assert np.abs(frames[first - 1] - frames[0]).mean() < 4
    thing = clip.moving[first]
    rows, columns = np.mgrid[:256, :256] / 256
    inside = np.hypot(columns - thing.x, rows - thing.y) < 0.6 * thing.radius
    change = np.abs(frames[first] - frames[0]).mean(2)
    assert change[inside].mean() > 5 * change[~inside].mean()
    assert np.abs(frames[-1] - frames[0]).mean() > 0.5


def test_questions_have_one_right_option_each_in_the_schema_of_the_task(video):
    answers = []
    for number in range(20):
        clip = video.clips.make_clip(number)
        asked = video.clips.documents(clip)
        assert [one["about"] for one in asked] == ["moving", "moving", "still", "still"]
        for one in asked:
            options = [one[f"choice_{letter}"] for letter in "abcd"]
            assert len(set(options)) == 4
            assert one["data_type"] == "video"
            answers.append(one["answer"])
            assert options["ABCD".index(one["answer"])] in (
                clip.mover.colour, clip.mover.kind, clip.still.ground,
                *(thing.colour for thing in clip.still.things),
            )  # fmt: skip
        assert "\nA. " in video.clips.prompt(asked[0])
    assert set(answers) == set("ABCD")


def test_the_object_s_patches_are_in_its_frames_and_around_its_centre(video):
    clip = video.clips.make_clip(5)
    found = video.clips.shown(clip, 16).reshape(-1, 16, 16)
    for patches, thing in zip(found, clip.moving, strict=True):
        assert patches.any() == (thing is not None)
        if thing is not None:
            assert patches[int(thing.y * 16), int(thing.x * 16)]
            assert patches.sum() == pytest.approx(math.pi * (16 * thing.radius) ** 2, rel=0.3)


def frames_of(t=4, n=64, d=8):
    return torch.randn(t, n, d, generator=torch.Generator().manual_seed(0))


def test_a_budget_a_frame_is_each_frame_alone_and_one_a_clip_all_together(video):
    frames = frames_of()
    for name in ("otprune", "divprune", "w2greedy"):
        pruner = make_pruner(name)
        kept = video.study.keep(name, "frame", frames, 32, 0)
        for i, frame in enumerate(frames):
            mine = kept[(kept >= 64 * i) & (kept < 64 * (i + 1))] - 64 * i
            assert mine.tolist() == pruner.select(frame, 8).tolist()
        together = video.study.keep(name, "clip", frames, 32, 0)
        assert together.tolist() == pruner.select(frames.flatten(0, 1), 32).tolist()
    for name, budget, k in video.study.settings():
        assert len(video.study.keep(name, budget, frames_of(n=256), k, 3).unique()) == k


def test_the_control_keeps_what_changed(video):
    frames = frames_of(t=1).expand(4, 64, 8).clone()
    frames[2, 10:14] += 5
    kept = video.study.changed(frames, 16)
    assert len(kept.unique()) == 16
    assert (kept < 64).sum() == 4
    # They change when they come and when they go.
    moved = {64 * 2 + i for i in range(10, 14)} | {64 * 3 + i for i in range(10, 14)}
    assert moved <= set(kept.tolist())


def test_growth_is_the_exponent(video):
    sizes = [20_000, 50_000, 100_000]
    assert video.study.growth(sizes, [3 * n for n in sizes]) == "1.00"
    assert video.study.growth(sizes, [n**2 / 1e4 for n in sizes]) == "2.00"
    assert video.study.growth(sizes[:1], [1.0]) == "-"
    rows = video.study.memory_rows({("otprune", n): {"MiB": n / 100, "s": 1.0} for n in sizes})
    mine = next(row for row in rows if row["method"] == "otprune")
    assert mine["growth"] == "1.00"
    assert next(row for row in rows if row["method"] == "dpp")["MiB, 20,000"] == "not finished"


def test_clip_budgets_are_compared_with_frame_budgets_clip_by_clip(video):
    rows = []
    for clip in range(40):
        for setting in video.study.METHODS:
            for budget in ("clip", "frame"):
                for about in ("moving", "still"):
                    right = int(budget == "clip" or setting != "otprune")
                    rows.append(
                        {"setting": setting, "budget": budget, "k": 128, "clip": clip,
                         "about": about, "right": right, "mover": 0.5, "repeated": 0.1}
                    )  # fmt: skip
    frame = pd.DataFrame(rows)
    found = video.study.comparison_rows(frame, 128)
    assert found[0]["clip - frame"] == "100.0 [100.0, 100.0]"
    assert float(found[0]["p"]) < 0.01
    assert {row["p"] for row in found if row["method"] != "otprune"} == {"1"}
    table = video.study.answer_rows(frame, 128)
    assert table[0]["mover"] == "0.500 [0.500, 0.500]"
