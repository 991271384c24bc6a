import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from layer_pruners.views import make_view, pruned, rotated, seeded
from otprune import LayerPruner, make_pruner
from otprune.layer_pruners.sparsevlm import (
    SparseVLM,
    cluster_labels,
    cluster_means,
    largest_heads,
    rotary_weights,
    text_raters,
)
from otprune.schedule import tokens_by_layer

MEANS = {
    "v1.5-192": 206.5,
    "v1.5-128": 145.4,
    "v1.5-96": 114.1,
    "v1.5-64": 82.3,
    "v2-192": 206.8,
    "v2-128": 144.1,
    "v2-96": 113.9,
    "v2-64": 81.8,
}


def started(pruner, **settings):
    """A view at layer 3 whose raters were chosen on another, its input at layer 0."""
    view = make_view(layer=3, **settings)
    return replace(view, started=pruner.start(make_view(layer=0, **{**settings, "seed": 77})))


def by_descending(values):
    return sorted(range(len(values)), key=lambda i: (-values[i], i))


def plain_raters(visual, text):
    shares = [0.0] * len(text)
    for row in visual.tolist():
        logits = [sum(a * b for a, b in zip(row, word, strict=True)) for word in text.tolist()]
        largest = max(logits)
        exponentials = [math.exp(x - largest) for x in logits]
        for i, value in enumerate(exponentials):
            shares[i] += value / sum(exponentials) / len(visual)
    return [i for i, share in enumerate(shares) if share > sum(shares) / len(shares)]


def plain_clusters(points, count, ties="both"):
    """Members of each cluster, in the order of the centres' scores."""
    d = points.shape[1]
    rows = points.double().tolist()
    far = [[math.dist(a, b) / math.sqrt(d) for b in rows] for a in rows]
    density = [math.exp(-sum(x * x for x in sorted(row)[:count]) / count) for row in far]
    score = []
    for i, row in enumerate(far):
        equal = [ties == "first" and density[j] == density[i] and j < i for j in range(len(row))]
        denser = [x for j, x in enumerate(row) if density[j] > density[i] or equal[j]]
        score.append(density[i] * (min(denser) if denser else max(map(max, far))))
    centres = sorted(range(len(rows)), key=lambda i: (-score[i], -i))[:count]
    members = [[c] for c in centres]
    for i, row in enumerate(far):
        if i not in centres:
            members[min(range(count), key=lambda c: row[centres[c]])].append(i)
    return members


def plain_scores(pruner, view, raters):
    attention = view.probe.full_attention(view.layer - 1).double()
    heads = []
    for table in attention:
        heads.append([[float(table[row, column]) for column in view.visual] for row in raters])
    if pruner.version == "2":
        ones = torch.ones(len(view.positions), view.probe.channels)
        turned = rotated(ones, *view.probe.angles()).double()
        for table in heads:
            for i, row in enumerate(raters):
                for j, column in enumerate(view.visual):
                    table[i][j] /= float(turned[row] @ turned[column]) / view.probe.channels**0.5
        order = by_descending([sum(map(sum, table)) for table in heads])
        heads = [heads[h] for h in sorted(order[: pruner.heads])]
    rows = [row for table in heads for row in table]
    return [sum(row[j] for row in rows) / len(rows) for j in range(len(view.visual))]


@pytest.mark.parametrize(("preset", "mean"), MEANS.items())
def test_presets_process_as_many_tokens_as_measured(preset, mean):
    pruner = make_pruner("sparsevlm", preset=preset)
    plan = pruner.plan(576, 32, None, float)
    entering = tokens_by_layer(plan, 576, 32, pruner.appended)
    assert sum(entering) / 32 == pytest.approx(mean, abs=0.051)


@pytest.mark.parametrize(
    ("preset", "counts"),
    [
        ("192", (309, 204, 113)),
        ("128", (312, 117, 39)),
        ("96", (249, 55, 27)),
        ("64", (82, 32, 18)),
    ],
)
def test_version_1_5_enters_the_layers_with_the_merged_tokens(preset, counts):
    pruner = make_pruner("sparsevlm", preset=f"v1.5-{preset}")
    entering = tokens_by_layer(pruner.plan(576, 32, None, float), 576, 32, pruner.appended)
    assert (entering[2], entering[3], entering[7], entering[16]) == (576, *counts)


def test_a_point_drops_at_least_one_token_but_not_the_last():
    pruner = make_pruner("sparsevlm", version="2")
    assert pruner.plan(100, 32, None, float) == {3: 99, 7: 98, 16: 97}
    assert pruner.plan(2, 32, None, float) == {3: 1, 7: 1, 16: 1}


def test_a_target_scales_the_schedule_merged_tokens_included():
    pruner = make_pruner("sparsevlm", preset="v1.5-192")
    plan = pruner.plan(576, 32, 192 * 32, float)
    total = sum(tokens_by_layer(plan, 576, 32, pruner.appended))
    assert 191 * 32 <= total <= 192 * 32


@pytest.mark.parametrize("seed", range(5))
def test_raters_are_those_of_a_plain_implementation(seed):
    visual = torch.randn(30, 16, generator=seeded(seed, 1)) / 2
    text = torch.randn(9, 16, generator=seeded(seed, 2)) / 2
    assert text_raters(visual, text).tolist() == plain_raters(visual, text)


def test_raters_are_numbers_among_the_question():
    view = make_view(layer=0, before=3, visual=12, after=7, answer=2, hidden=4)
    found = SparseVLM().start(view)
    assert found.tolist() == plain_raters(view.hidden[3:15], view.hidden[15:22])


def test_all_of_the_question_rates_if_no_token_is_above_the_mean():
    text = torch.ones(1, 4).repeat(3, 1)
    assert text_raters(torch.randn(5, 4, generator=seeded(0)), text).tolist() == [0, 1, 2]
    assert text_raters(torch.ones(5, 4), text[:1]).tolist() == [0]


@pytest.mark.parametrize("version", ["1.5", "2"])
def test_without_a_question_the_last_position_rates(version):
    pruner = SparseVLM(version=version)
    view = started(pruner, after=0)
    kept = pruner.prune(view, 9)
    assert view.probe.calls[0] == ("attention", 2, [24])
    assert kept.scores.tolist() == pytest.approx(plain_scores(pruner, view, [24]), rel=1e-4)


@pytest.mark.parametrize("version", ["1.5", "2"])
@pytest.mark.parametrize("seed", range(4))
def test_scores_and_kept_tokens_are_those_of_a_plain_implementation(version, seed):
    pruner = SparseVLM(version=version, heads=3)
    view = started(pruner, visual=40, n=90, seed=seed, channels=16)
    raters = view.question[view.started].tolist()
    scores = plain_scores(pruner, view, raters)
    kept = pruner.prune(view, 15)
    assert view.probe.calls[0] == ("attention", 2, raters)
    assert kept.scores.tolist() == pytest.approx(scores, rel=1e-4)
    assert sorted(kept.index.tolist()) == sorted(by_descending(scores)[:15])


@pytest.mark.parametrize("seed", range(4))
def test_merged_tokens_are_means_of_plain_clusters_of_the_best_dropped(seed):
    pruner = SparseVLM(per_cluster=3)
    view = started(pruner, visual=60, seed=seed, hidden=4)
    kept = pruner.prune(view, 20)
    recycled = by_descending(kept.scores.tolist())[20 : 20 + int(0.3 * 40) + 1]
    points = view.hidden[view.visual[recycled]]
    members = plain_clusters(points, 13 // 3 + 1)
    assert kept.merged.shape == (5, 4)
    for row, cluster in zip(kept.merged, members, strict=True):
        torch.testing.assert_close(row, points[cluster].mean(0))


@given(
    q=st.integers(1, 40),
    per=st.integers(1, 10),
    d=st.integers(1, 6),
    seed=st.integers(0, 99),
    repeats=st.integers(1, 3),
    ties=st.sampled_from(["both", "first"]),
)
def test_clusters_are_those_of_a_plain_implementation(q, per, d, seed, repeats, ties):
    # Repeated points make exact ties.
    points = torch.randn(q, d, generator=seeded(seed)).repeat(repeats, 1)
    count = len(points) // per + 1 if per > 1 else max(1, len(points) // 3)
    count = min(count, len(points))
    labels = cluster_labels(points, count, ties)
    assert labels.bincount(minlength=count).min() >= 1
    if repeats == 1:
        found = [set((labels == c).nonzero()[:, 0].tolist()) for c in range(count)]
        assert found == [set(members) for members in plain_clusters(points, count, ties)]


def test_of_two_clusters_the_closest_pair_are_both_centres_unless_the_first_wins():
    points = torch.tensor([[0.0], [9.0], [10.0], [1.5], [10.5], [11.5]])
    both = cluster_labels(points, 2)
    assert both.tolist() == [1, 1, 1, 1, 0, 0]
    first = cluster_labels(points, 2, "first")
    assert first.tolist() == [1, 0, 0, 1, 0, 0]


def test_a_single_cluster_is_the_mean_and_as_many_as_points_the_points():
    points = torch.randn(7, 3, generator=seeded(1))
    torch.testing.assert_close(cluster_means(points, 1), points.mean(0, keepdim=True))
    own = cluster_means(points, 7)
    assert sorted(own.tolist()) == sorted(points.tolist())


def test_half_precision_tokens_are_merged_in_float32():
    points = torch.randn(30, 8, generator=seeded(2)).half() * 100
    merged = cluster_means(points, 1)
    assert merged.dtype == torch.float16
    assert torch.equal(merged[0], points.float().mean(0).half())


@given(
    dropped=st.integers(0, 600), recycle=st.sampled_from([0, 0.3, 1]), per=st.sampled_from([1, 10])
)
def test_merged_tokens_are_never_more_than_dropped_ones(dropped, recycle, per):
    pruner = SparseVLM(recycle=recycle, per_cluster=per)
    merged = pruner.appended(dropped)
    assert merged <= pruner.recycled(dropped) <= dropped
    assert (merged == 0) == (dropped == 0 or recycle == 0)
    if recycle == 0.3 and per == 10 and dropped:
        assert merged == int((int(0.3 * dropped) + 1) / 10) + 1


@given(v=st.integers(2, 40), data=st.data())
def test_as_many_tokens_are_merged_as_promised(v, data):
    k = data.draw(st.integers(0, v - 1))
    pruner = SparseVLM()
    kept = pruner.prune(started(pruner, visual=v), k)
    assert len(kept.index) == k
    assert len(kept.merged) == pruner.appended(v - k)


@pytest.mark.parametrize("settings", [{"version": "2"}, {"recycle": 0}])
def test_nothing_is_merged_by_version_2_or_without_recycling(settings):
    pruner = SparseVLM(**settings)
    assert pruner.prune(started(pruner), 5).merged is None
    assert pruner.appended(300) == 0


def test_positions_are_compact_in_version_1_5_and_original_in_version_2():
    assert SparseVLM().positions == "compact"
    assert SparseVLM(version="2").positions == "original"


def test_raters_follow_the_question_when_positions_have_shifted():
    pruner = SparseVLM()
    short = make_view(layer=7, visual=9, n=20, started=torch.tensor([1, 4]))
    pruned(pruner, short, 3)
    assert short.probe.calls == [("attention", 6, [15, 18])]


def test_merged_tokens_are_candidates_like_others():
    numbers = torch.cat([torch.arange(10), torch.arange(50, 53)])
    view = make_view(visual=13, n=50, numbers=numbers, started=torch.tensor([0, 2]))
    scores = SparseVLM().prune(view, 4).scores
    best = [int(numbers[i]) for i in by_descending(scores.tolist())[:4]]
    assert pruned(SparseVLM(), view, 4) == sorted(best)


def test_rotary_weights_are_products_of_turned_ones():
    probe = make_view(positions=torch.arange(31) * 3 + 1).probe
    turned = rotated(torch.ones(31, 8), *probe.angles())
    rows, columns = torch.tensor([26, 30]), torch.arange(5, 25)
    found = rotary_weights(probe, 1, rows, columns)
    torch.testing.assert_close(found, turned[rows] @ turned[columns].T / 8**0.5)


def test_the_largest_heads_come_in_ascending_order():
    ratings = torch.tensor([1.0, 5, 3, 5, -2]).reshape(5, 1, 1)
    assert largest_heads(ratings, 3).tolist() == [1, 2, 3]
    assert largest_heads(ratings, 14).tolist() == [0, 1, 2, 3, 4]
    assert largest_heads(torch.zeros(4, 2, 2), 2).tolist() == [0, 1]


def test_it_is_a_layer_pruner_that_looks_back_and_starts():
    pruner = make_pruner("sparsevlm")
    assert isinstance(pruner, LayerPruner)
    assert pruner.looks_back
    assert pruner.starts
    assert pruner == make_pruner("sparsevlm", preset="v1.5-192")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"version": "1.0"}, "version must be one of 1.5, 2; got '1.0'"),
        ({"recycle": 1.5}, r"recycle must be in \[0, 1\], got 1.5"),
        ({"recycle": True}, "recycle must be"),
        ({"per_cluster": 0}, "per_cluster must be an integer >= 1, got 0"),
        ({"ties": "none"}, "ties must be one of both, first; got 'none'"),
        ({"heads": 0}, "heads must be an integer >= 1, got 0"),
        ({"schedule": "0:100/3:50"}, "schedule must begin at layer 1 or later, got '0:100/3:50'"),
        ({"schedule": "3"}, "schedule must be"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        make_pruner("sparsevlm", **settings)
