"""Max-min and coverage programs, on a GPU or in Triton's interpreter; scripts/test_triton.sh."""

import importlib
import os

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import HostReads, no_waiting
from otprune import make_pruner
from otprune.greedy import conditional, coverage, max_min_device
from otprune.greedy.conditional import conditional_loops
from otprune.greedy.conditional_gains import Gains
from otprune.greedy.coverage import coverage_loop
from otprune.greedy.covers import Cover
from otprune.greedy.max_min_device import max_min_loops
from otprune.greedy.programs import padded
from otprune.kernels import unit_rows
from otprune.selectors.cdpruner import conditional_together, gains_of

# TID251: Triton reads it when it is imported, and so must its tests.
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"  # noqa: TID251
DEVICE = "cpu" if INTERPRETED else "cuda"
pytestmark = pytest.mark.skipif(
    not (INTERPRETED or torch.cuda.is_available()),
    reason="neither a GPU nor TRITON_INTERPRET=1",
)


def max_min_programs(*given):
    from otprune.greedy.triton_max_min import max_min_programs

    return max_min_programs(*given)


def coverage_programs(covers):
    from otprune.greedy.triton_coverage import coverage_programs

    return coverage_programs(covers)


def conditional_programs(*given):
    from otprune.greedy.triton_conditional import conditional_programs

    return conditional_programs(*given)


def same(found, expected):
    assert [one.tolist() for one in found] == [one.tolist() for one in expected]


def check_max_min(distances, first, sizes, k):
    given = (distances.to(DEVICE), torch.tensor(first, device=DEVICE), sizes, k)
    same(max_min_programs(*given), max_min_loops(*given))


@given(data=st.data(), levels=st.sampled_from([2, 5, None]))
@settings(max_examples=12)
def test_max_min_picks_are_those_of_the_loop(data, levels):
    sizes = data.draw(st.lists(st.integers(1, 20), min_size=1, max_size=4))
    k = [data.draw(st.integers(1, n)) for n in sizes]
    first = [data.draw(st.integers(0, n - 1)) for n in sizes]
    n = max(sizes)
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 2**31)))
    dtype = data.draw(st.sampled_from([torch.float32, torch.float64]))
    distances = torch.rand(len(sizes), n, n, generator=generator, dtype=dtype)
    # Few levels: most distances are equal.
    check_max_min(distances if levels is None else (distances * levels).round(), first, sizes, k)


def test_max_min_of_as_many_tokens_as_a_model_gives(rng):
    check_max_min(torch.rand(2, 576, 576, generator=rng), [575, 3], [576, 400], [56, 30])


def whole_numbers(generator, r, n, most, dtype):
    """Entries of few values, of which all sums are exact in both."""
    return torch.randint(0, most + 1, (r, n), generator=generator).to(dtype) / 8


@given(data=st.data(), most=st.sampled_from([1, 3, 1000]))
@settings(max_examples=15)
def test_coverage_picks_are_those_of_the_loop(data, most):
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 2**31)))
    dtype = data.draw(st.sampled_from([torch.float32, torch.float64]))
    covers = []
    for _ in range(data.draw(st.integers(1, 3))):
        r, n = data.draw(st.integers(1, 14)), data.draw(st.integers(1, 14))
        k = data.draw(st.integers(1, n))
        last = torch.randperm(n, generator=generator)[: data.draw(st.integers(0, n))]
        weights = torch.randint(0, 3, (n,), generator=generator).float()
        rows = whole_numbers(generator, r, n, most, dtype).to(DEVICE)
        covers.append(
            Cover(
                rows,
                k,
                data.draw(st.sampled_from([None, last.to(DEVICE)])),
                data.draw(st.sampled_from([None, weights.to(DEVICE)])),
            )
        )
    same(coverage_programs(covers), map(coverage_loop, covers))


@given(data=st.data())
@settings(max_examples=10)
def test_conditional_picks_are_those_of_the_loop(data):
    sizes = data.draw(st.lists(st.integers(1, 20), min_size=1, max_size=3))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 2**31)))
    # Fewer channels than tokens: some tokens are spanned at last, and go by relevance.
    d = data.draw(st.integers(2, 24))
    images = [unit_rows(torch.randn(n, d, generator=generator)) for n in sizes]
    relevance = [torch.rand(n, generator=generator) for n in sizes]
    if data.draw(st.booleans()):
        images[0][-1] = 0
    k = [data.draw(st.integers(1, n)) for n in sizes]
    together, moved = padded(images, torch.float32), [one.to(DEVICE) for one in relevance]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(conditional, "can_run", lambda tensor, n: True)
        patch.setattr(conditional, "_program", lambda device: conditional_programs)
        found = conditional_together(together.to(DEVICE), moved, k)
    expected = conditional_together(together, relevance, k)
    # Whether a token is spanned is a matter of rounding where channels are just used up.
    for order, wanted in zip(found, expected, strict=True):
        assert order[: d - 1].tolist() == wanted[: d - 1].tolist()
        assert sorted(order.tolist()) == sorted(set(order.tolist()))


def test_spanned_tokens_follow_by_relevance():
    units = torch.eye(3).repeat(3, 1).to(DEVICE)
    relevance = torch.linspace(0.1, 0.9, 9).to(DEVICE)
    gains = gains_of(units, relevance)
    (order,) = conditional_programs((units @ units.T)[None], Gains(*(g[None] for g in gains)), [9])
    assert order.tolist() == [8, 7, 6, 5, 4, 3, 2, 1, 0]
    weights = relevance.flip(0)
    gains = gains_of(units, weights)
    (order,) = conditional_programs((units @ units.T)[None], Gains(*(g[None] for g in gains)), [9])
    assert order.tolist() == list(range(9))


def test_conditional_picks_of_as_many_tokens_as_a_model_gives(rng):
    units = unit_rows(torch.randn(576, 64, generator=rng)).to(DEVICE)
    gains = gains_of(units, torch.rand(576, generator=rng).to(DEVICE))
    given = ((units @ units.T)[None], Gains(*(one[None] for one in gains)), [56])
    same(conditional_programs(*given), conditional_loops(*given))


def cosines(n: int, d: int, generator: torch.Generator) -> torch.Tensor:
    units = unit_rows(torch.randn(n, d, generator=generator) + 0.5)
    return (units @ units.T).to(DEVICE)


def test_coverage_of_as_many_tokens_as_a_model_gives(rng):
    covers = [
        Cover((1 + cosines(576, 32, rng)) / 2, 20),
        Cover(torch.softmax(cosines(300, 32, rng) / 0.2, 1) / 300, 40),
        # Below 0 for some: not covered at all.
        Cover(cosines(200, 8, rng), 30, None, torch.rand(200, generator=rng).to(DEVICE)),
    ]
    same(coverage_programs(covers), map(coverage_loop, covers))


@pytest.mark.parametrize("size", [1e-20, 1.0, 1e20])
def test_coverage_does_not_depend_on_the_magnitude(size, rng):
    rows = torch.rand(30, 40, generator=rng).to(DEVICE)
    # By a power of two, which rounds nothing.
    factor = 2.0 ** round(torch.tensor(size).log2().item())
    same(coverage_programs([Cover(rows * factor, 15)]), coverage_programs([Cover(rows, 15)]))


def test_once_all_is_covered_the_lowest_follow(rng):
    # Each of ten kinds of columns three times: after ten picks no gain is left, to the last bit.
    kinds = torch.rand(50, 10, generator=rng)
    rows = kinds.repeat(1, 3).to(DEVICE)
    (order,) = coverage_programs([Cover(rows, 25)])
    picks = order.tolist()
    assert sorted(picks[:10]) == list(range(10))
    assert picks[10:] == list(range(10, 25))
    zeros = torch.zeros(4, 9, device=DEVICE)
    same(coverage_programs([Cover(zeros, 9)]), [torch.arange(9)])


def test_nothing_is_read_back(rng):
    distances, first = torch.rand(2, 9, 9, generator=rng).to(DEVICE), torch.zeros(2, dtype=int)
    covers = [Cover(torch.rand(8, 9, generator=rng).to(DEVICE), 4)]
    given = (distances, first.to(DEVICE), [9, 7], [4, 4])
    max_min_programs(*given)
    coverage_programs(covers)
    if not INTERPRETED:
        with HostReads() as reads, no_waiting():
            max_min_programs(*given)
            coverage_programs(covers)
        assert reads.count == 0


LOOPS = {
    max_min_device: "max_min_loops",
    coverage: "coverage_loop",
    conditional: "conditional_loops",
}


@pytest.mark.parametrize("module", LOOPS, ids=lambda module: module.__name__)
def test_a_program_is_used_after_its_check_alone(module, monkeypatch, caplog):
    module._program.cache_clear()
    device = torch.device(DEVICE)
    kinds = [(device,)]
    if module is not conditional:
        kinds = [(device, dtype) for dtype in (torch.float32, torch.float64)]
    for kind in kinds:
        assert module._program(*kind) is not None
    module._program.cache_clear()
    name = LOOPS[module]
    loop = getattr(module, name)

    def otherwise(*given):
        found = loop(*given)
        return [one.flip(0) for one in found] if isinstance(found, list) else found.flip(0)

    monkeypatch.setattr(module, name, otherwise)
    assert module._program(*kinds[0]) is None
    assert "triton's picks differ from its own" in caplog.text
    module._program.cache_clear()


METHODS = {
    "divprune": {},
    "farthest_point": {},
    # Sums of float32 products, which round otherwise in a batch, decide between near tokens.
    "facility_location": {"accumulate": "float64"},
    "cdpruner": {"relevance": "none"},
}


@pytest.mark.parametrize("name", METHODS)
def test_methods_pick_by_programs_what_they_pick_on_a_cpu(name, rng, monkeypatch):
    # Later, gains of facility location are those of a token and its neighbour alone, and equal.
    pruner, counts = make_pruner(name, **METHODS[name]), [9, 7, 12]
    images = [torch.randn(n, 24, generator=rng) for n in (40, 25, 40)]
    expected = pruner.rank_batch(images, counts)
    if INTERPRETED:
        # As on a GPU, but for the device of the numbers.
        for module, loop in LOOPS.items():
            monkeypatch.setattr(module, "can_run", lambda tensor, n: True)
            monkeypatch.setattr(module, loop, None)
        selector = importlib.import_module(f"otprune.selectors.{name}")
        monkeypatch.setattr(selector, "go_together", lambda images, dtype: True)
        monkeypatch.setattr(max_min_device, "_program", lambda *kind: max_min_programs)
        monkeypatch.setattr(coverage, "_program", lambda *kind: coverage_programs)
        monkeypatch.setattr(conditional, "_program", lambda *kind: conditional_programs)
    same(pruner.rank_batch([image.to(DEVICE) for image in images], counts), expected)
