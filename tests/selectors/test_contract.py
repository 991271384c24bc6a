"""What every selector of the registry owes its caller, whatever the method."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import otprune.greedy.dispatch
from helpers import HostReads, real_tokens, signals_for, token_matrices
from otprune import Selector, Signals, make_pruner
from otprune.greedy.device import greedy_device
from otprune.registry import SELECTORS
from otprune.tiles import share_out

NAMES = sorted(SELECTORS)
# These go by position, not by what the tokens hold.
POSITIONAL = {"random", "uniform", "grid", "first_k", "last_k"}
NESTED = sorted(name for name in NAMES if make_pruner(name).nested)


NEEDY = sorted(name for name in NAMES if make_pruner(name).needs)
TILES = torch.tensor([0] * 9 + [1, 1, 1, 2, 2, 2, -1] * 3)
"""Three tiles of 3 x 3 as LLaVA-1.6 lays them out: the whole image, then rows with their ends."""


def rank(pruner: Selector, tokens: torch.Tensor, k: int, **given) -> torch.Tensor:
    return pruner.rank(tokens, k, signals_for(pruner, tokens, **given))


def select(pruner: Selector, tokens: torch.Tensor, k: int, **given) -> torch.Tensor:
    return pruner.select(tokens, k, signals=signals_for(pruner, tokens, **given))


def every_variant():
    for name in NAMES:
        yield name, {}
        for preset in SELECTORS[name].presets:
            yield name, {"preset": preset}
        if "accumulate" in {field.name for field in dataclasses.fields(SELECTORS[name])}:
            yield name, {"accumulate": "float64"}
    yield "herding", {"kernel": "gaussian"}
    yield "farthest_point", {"space": "unit"}
    yield "divprune", {"accumulate": "model"}
    yield "otprune", {"variant": "paper", "arithmetic": "reference"}
    yield "otprune", {"order": "reference"}
    yield "scope", {"combined": "add"}
    yield "vispruner", {"important_ratio": 0.0}


VARIANTS = [
    pytest.param(name, settings, id="-".join([name, *map(str, settings.values())]))
    for name, settings in every_variant()
]


def awkward_tokens() -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(3)
    plain = torch.randn(20, 6, generator=g)
    dead_channel = plain.clone()
    dead_channel[:, 2] = 0
    dead_token = plain.clone()
    dead_token[4] = 0
    return {
        "one token": plain[:1],
        "two tokens": plain[:2],
        "one channel": plain[:, :1],
        "duplicates": plain[:5].repeat(4, 1),
        "all equal": torch.ones(20, 6),
        "all zero": torch.zeros(20, 6),
        "a dead channel": dead_channel,
        "a dead token": dead_token,
        "huge": plain * 1e25,
        "tiny": plain * 1e-25,
        "half": plain.half(),
        "bfloat16": plain.bfloat16(),
        "double": plain.double(),
        "not contiguous": torch.randn(6, 40, generator=g).T[::2],
        "more channels than tokens": torch.randn(7, 50, generator=g),
    }


@pytest.mark.parametrize(("name", "chosen"), VARIANTS)
@pytest.mark.parametrize("case", awkward_tokens())
def test_the_answer_is_k_distinct_positions_in_range_and_the_same_again(name, chosen, case):
    tokens = awkward_tokens()[case]
    before = tokens.clone()
    n = len(tokens)
    for k in {1, (n + 1) // 2, n}:
        pruner = make_pruner(name, **chosen)
        kept = select(pruner, tokens, k)
        assert kept.shape == (k,)
        assert kept.dtype == torch.int64
        assert kept.device == tokens.device
        assert len(set(kept.tolist())) == k
        assert kept.min() >= 0
        assert kept.max() < n
        if getattr(pruner, "order", "spatial") == "spatial":
            assert kept.tolist() == sorted(kept.tolist())
        picks = rank(pruner, tokens, k)
        assert set(picks.tolist()) == set(kept.tolist()) or k == n
        again = select(make_pruner(name, **chosen), tokens, k)
        assert torch.equal(kept, again)
    assert torch.equal(tokens, before)


@pytest.mark.parametrize("name", NESTED)
@given(tokens=token_matrices(min_n=2))
@settings(max_examples=15)
def test_smaller_budgets_are_prefixes_of_larger_ones(name, tokens):
    pruner = make_pruner(name)
    longest = rank(pruner, tokens, len(tokens)).tolist()
    for k in {1, 2, (len(tokens) + 1) // 2}:
        assert rank(pruner, tokens, k).tolist() == longest[:k]
        kept = select(pruner, tokens, k).tolist()
        assert kept == sorted(longest[:k]) or k == len(tokens)


@pytest.mark.parametrize("name", NESTED)
def test_smaller_budgets_are_prefixes_on_real_tokens(name):
    tokens = real_tokens()["coffee"]
    pruner = make_pruner(name)
    longest = rank(pruner, tokens, 115).tolist()
    for k in (29, 56):
        assert rank(pruner, tokens, k).tolist() == longest[:k]


@pytest.mark.parametrize("name", NESTED)
def test_smaller_budgets_are_prefixes_for_several_tiles(name):
    pruner, tokens = (
        make_pruner(name),
        torch.randn(30, 8, generator=torch.Generator().manual_seed(1)),
    )
    longest = rank(pruner, tokens, 30, tiles=TILES).tolist()
    for k in range(1, 30):
        assert rank(pruner, tokens, k, tiles=TILES).tolist() == longest[:k]


@pytest.mark.parametrize("name", ["otprune", "w2greedy", "herding", "farthest_point"])
@given(data=st.data())
@settings(max_examples=15)
def test_permuting_tokens_permutes_the_answer(name, data):
    # The other methods tie by nature, and then positions decide: all first gains of dpp are equal,
    # and so are both members of a pair of nearest neighbours in the three that look at neighbours.
    tokens = data.draw(token_matrices(min_n=3)).double()
    if tokens.shape[1] < 3:
        return  # in one or two dimensions unit-norm tokens tie
    order = torch.tensor(data.draw(st.permutations(range(len(tokens)))))
    pruner = make_pruner(name, **({} if name == "w2greedy" else {"accumulate": "float64"}))
    k = data.draw(st.integers(1, max(1, min(len(tokens) - 1, tokens.shape[1]))))
    kept = pruner.rank(tokens, k)
    moved = pruner.rank(tokens[order], k)
    assert order[moved].tolist() == kept.tolist()


@pytest.mark.parametrize("name", sorted(set(NAMES) - POSITIONAL))
@pytest.mark.parametrize("photo", ["astronaut", "rocket"])
@pytest.mark.parametrize("k", [115, 300, 575])
def test_picks_of_real_tokens_stay_distinct_at_large_budgets(name, photo, k):
    picks = rank(make_pruner(name), real_tokens()[photo], k)
    assert len(picks.unique()) == k


@pytest.mark.parametrize("name", sorted(set(NAMES) - POSITIONAL))
@pytest.mark.parametrize("mean", [20.0, 200.0])
def test_picks_stay_distinct_when_all_tokens_point_the_same_way(name, mean):
    g = torch.Generator().manual_seed(8)
    tokens = torch.randn(300, 128, generator=g) + mean * torch.randn(128, generator=g)
    assert len(rank(make_pruner(name), tokens, 150).unique()) == 150


def blank_signals(pruner: Selector, tokens: torch.Tensor, fill: float) -> Signals:
    """Signals that say the same of every token."""
    made = signals_for(pruner, tokens)
    tensors = {need: getattr(made, need) for need in pruner.needs}
    blank = {
        need: torch.full_like(value, fill)
        for need, value in tensors.items()
        if isinstance(value, torch.Tensor)
    }
    return dataclasses.replace(made, **blank)


@pytest.mark.parametrize("name", NEEDY)
@pytest.mark.parametrize("fill", [0.0, 1e-30, 0.25, 1e4])
def test_signals_that_tell_no_tokens_apart_still_give_k_distinct_ones(name, fill):
    pruner, tokens = (
        make_pruner(name),
        torch.randn(20, 6, generator=torch.Generator().manual_seed(2)),
    )
    for alike in (tokens, torch.ones_like(tokens)):
        signals = blank_signals(pruner, alike, fill)
        for k in (1, 7, 19, 20):
            assert len(pruner.rank(alike, k, signals).unique()) == k


@pytest.mark.parametrize("name", NAMES)
def test_an_image_in_several_tiles_gives_k_distinct_positions(name):
    pruner, tokens = (
        make_pruner(name),
        torch.randn(30, 8, generator=torch.Generator().manual_seed(1)),
    )
    grid = (5, 6) if name == "grid" else None
    for k in (1, 4, 12, 27, 29):
        kept = select(pruner, tokens, k, tiles=TILES, grid=grid)
        assert len(kept.unique()) == k
        assert kept.tolist() == sorted(kept.tolist())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("name", "chosen"), VARIANTS)
def test_autocast_changes_no_pick(name, chosen, dtype):
    pruner = make_pruner(name, **chosen)
    tokens = torch.randn(40, 24, generator=torch.Generator().manual_seed(5)).to(dtype)
    want = rank(pruner, tokens, 16)
    signals = signals_for(pruner, tokens)
    for precision in (torch.bfloat16, torch.float16):
        with torch.autocast("cpu", precision):
            assert torch.equal(pruner.rank(tokens, 16, signals), want)
            assert (tokens.float() @ tokens.float().T).dtype == precision, "it goes on after that"


@pytest.mark.parametrize("name", NEEDY)
def test_every_signal_that_is_missing_is_named(name):
    pruner, tokens = make_pruner(name), torch.ones(9, 4)
    whole = signals_for(pruner, tokens)
    for need in pruner.needs:
        with pytest.raises(ValueError, match=rf"needs signals\.{need} for image 0"):
            pruner.select(tokens, 3, signals=dataclasses.replace(whole, **{need: None}))


@pytest.mark.parametrize("name", NEEDY)
def test_signals_in_half_precision_will_do(name):
    pruner, tokens = (
        make_pruner(name),
        torch.randn(30, 8, generator=torch.Generator().manual_seed(3)),
    )
    made = signals_for(pruner, tokens)
    halves = {
        need: value.half()
        for need in pruner.needs
        if isinstance(value := getattr(made, need), torch.Tensor)
    }
    signals = dataclasses.replace(made, **halves)
    assert len(pruner.select(tokens.half(), 11, signals=signals).unique()) == 11


class _Repeats(Selector):
    def _rank_image(self, tokens, k, signals):
        return torch.zeros(k, dtype=torch.int64)


def test_a_method_that_repeats_a_token_is_stopped():
    with pytest.raises(ArithmeticError, match="_Repeats did not pick 3 distinct tokens"):
        _Repeats().rank(torch.ones(5, 2), 3)


@pytest.fixture
def as_on_a_gpu(monkeypatch):
    """Methods go the way that they go on a GPU: nothing may be read back."""
    monkeypatch.setattr(
        otprune.greedy.dispatch, "_engine", lambda _: lambda v, k: greedy_device([v], [k])[0]
    )
    for module in (otprune.kernels, otprune.selectors.farthest_point):
        monkeypatch.setattr(module, "reading_waits", lambda _: True)


# Those left out read which tokens changed, and say so.
@pytest.mark.parametrize("name", sorted(set(NAMES) - {"facility_location", "kmedoids", "mmtok"}))
def test_host_reads_do_not_grow_with_the_budget(name, as_on_a_gpu):
    counts = []
    for k in (5, 15):
        pruner, tokens = make_pruner(name), real_tokens()["coffee"][:100]
        signals = signals_for(pruner, tokens)
        with HostReads() as reads:
            pruner.rank(tokens, k, signals)
        counts.append(reads.count)
    assert counts[0] == counts[1]


# Those left out read which tokens changed, and w2greedy how many factors count.
@pytest.mark.parametrize(
    "name", sorted(set(NAMES) - {"facility_location", "kmedoids", "mmtok", "w2greedy"})
)
def test_host_reads_do_not_grow_with_the_images(name, as_on_a_gpu):
    pruner, tokens = make_pruner(name), real_tokens()["coffee"][:100]
    signals = signals_for(pruner, tokens)
    counts = []
    for images in (1, 4):
        with HostReads() as reads:
            pruner.rank_batch([tokens] * images, [7] * images, [signals] * images)
        counts.append(reads.count)
    assert counts[0] == counts[1]


@pytest.mark.parametrize("name", sorted(set(NAMES) - POSITIONAL))
@pytest.mark.parametrize("exponent", [85, -85])
def test_multiplying_all_tokens_by_a_power_of_two_changes_nothing(name, exponent):
    tokens = torch.randn(24, 9, generator=torch.Generator().manual_seed(11))
    pruner = make_pruner(name)
    moved = rank(pruner, tokens * 2.0**exponent, 9).tolist()
    if name in ("otprune", "facility_location", "kmedoids"):
        # Their sums are scaled before or after a product: near-ties may fall differently.
        assert len(set(moved) & set(rank(pruner, tokens, 9).tolist())) >= 8
    else:
        assert moved == rank(pruner, tokens, 9).tolist()


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_of_unequal_images_equals_its_images_one_by_one(name):
    g = torch.Generator().manual_seed(5)
    images = [torch.randn(n, 12, generator=g) + 1 for n in (9, 30, 1, 16, 900)]
    pruner = make_pruner(name)
    signals = [signals_for(pruner, v, image_id=i) for i, v in enumerate(images)]
    together = pruner.select_batch(images, keep_ratio=0.3, signals=signals)
    for image, signal, kept in zip(images, signals, together, strict=True):
        alone = pruner.select(image, keep_ratio=0.3, signals=signal)
        assert torch.equal(kept, alone)
    counts = [3, 5, 1, 16, 20]
    together = pruner.select_batch(images, k=counts, signals=signals)
    assert [len(kept) for kept in together] == counts


@pytest.mark.parametrize("name", NAMES)
def test_a_three_axis_batch_gives_a_matrix(name):
    g = torch.Generator().manual_seed(6)
    images = torch.randn(3, 16, 5, generator=g)
    pruner = make_pruner(name)
    signals = [signals_for(pruner, image, image_id=i) for i, image in enumerate(images)]
    kept = pruner.select(images, 4, signals=signals)
    assert kept.shape == (3, 4)
    for image, signal, row in zip(images, signals, kept, strict=True):
        assert torch.equal(pruner.select(image, 4, signals=signal), row)


@pytest.mark.parametrize("name", NAMES)
def test_selection_needs_no_gradient_and_leaves_none(name):
    tokens = torch.randn(16, 5, requires_grad=True)
    pruner = make_pruner(name)
    made = signals_for(pruner, tokens.detach())
    tracked = {
        need: value.requires_grad_()
        for need in pruner.needs
        if isinstance(value := getattr(made, need), torch.Tensor)
    }
    kept = pruner.select(tokens, 4, signals=dataclasses.replace(made, **tracked))
    assert not kept.requires_grad
    assert not kept.is_inference()
    assert tokens.grad is None


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (torch.full((4, 3), float("nan")), "must be finite, got nan at token 0, channel 0"),
        (torch.tensor([[1.0, 2.0], [3.0, float("inf")]]), "got inf at token 1, channel 1"),
        (torch.tensor([[1.0, float("inf")], [3.0, -float("inf")]]), "must be finite"),
        (torch.full((2, 2), 1e39, dtype=torch.float64), "must be finite, got 1e.39"),
        (torch.ones(4, 3, dtype=torch.int64), "must be floating point, got torch.int64"),
        (torch.ones(4), "must have two axes"),
        (torch.ones(2, 2, 4, 3), "must have two axes"),
        (torch.ones(0, 3), "at least one token"),
        (torch.ones(4, 0), "at least one token and one channel"),
        (torch.ones(0, 4, 3), "at least one image"),
    ],
)
def test_bad_tokens_are_refused_with_the_reason(name, tokens, message):
    with pytest.raises(ValueError, match=message):
        make_pruner(name).select(tokens, keep_ratio=0.5)


@pytest.mark.parametrize("name", NAMES)
def test_the_message_names_the_image_of_a_batch(name):
    good = torch.ones(4, 3)
    bad = torch.full((4, 3), float("nan"))
    pruner = make_pruner(name)
    signals = [signals_for(pruner, good)] * 2
    with pytest.raises(ValueError, match="tokens of image 1 must be finite"):
        pruner.select_batch([good, bad], k=2, signals=signals)
    images = [torch.ones(5, 3), good]
    signals = [signals_for(pruner, image) for image in images]
    with pytest.raises(ValueError, match=r"image 1: k must be in 1\.\.n = 1\.\.4, got 5"):
        pruner.select_batch(images, k=5, signals=signals)


def test_a_budget_list_of_the_wrong_length_is_refused():
    with pytest.raises(ValueError, match="one per image"):
        make_pruner("first_k").select_batch([torch.ones(4, 3)], k=[1, 2])
    with pytest.raises(ValueError, match="one entry per image"):
        make_pruner("first_k").rank_batch([torch.ones(4, 3)], [1, 2])
    with pytest.raises(ValueError, match="signals must have one entry per image"):
        make_pruner("first_k").select_batch([torch.ones(4, 3)], k=1, signals=[])
    with pytest.raises(ValueError, match="signals must be a list of 2"):
        make_pruner("first_k").select(torch.ones(2, 4, 3), 1, signals=Signals())


def test_an_empty_batch_is_an_empty_answer():
    assert make_pruner("otprune").select_batch([], k=3) == []


@pytest.mark.gpu
@pytest.mark.parametrize("name", sorted(set(NAMES) - {"dpp"}))
def test_a_gpu_keeps_what_a_cpu_keeps(name):
    tokens = real_tokens()["astronaut"]
    pruner = make_pruner(name)
    on_cpu = set(select(pruner, tokens, 56, grid=(24, 24)).tolist())
    on_gpu = set(select(pruner, tokens.cuda(), 56, grid=(24, 24)).tolist())
    assert len(on_cpu & on_gpu) >= 54


@pytest.mark.parametrize("name", NAMES)
def test_budgets_are_divided_among_tiles_where_the_method_says_so(name):
    # The first tile is blank but for one token, so methods that look at all tiles keep less of it.
    tokens = torch.randn(len(TILES), 40, generator=torch.Generator().manual_seed(1))
    tokens[1:9] = tokens[:1]
    pruner = make_pruner(name)
    if name == "grid":
        pytest.skip("it is for images of one tile")
    even = []
    for k in (4, 5, 9, 14):
        kept = select(pruner, tokens, k, tiles=TILES)
        each = [int((TILES[kept] == tile).sum()) for tile in range(3)]
        even.append(each == share_out(k, [9, 9, 9]))
    assert all(even) == pruner.by_tile
