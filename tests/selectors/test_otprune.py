import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import brute_greedy, logdet, otprune_kernel, real_tokens, token_matrices
from otprune import make_pruner
from otprune.selectors.otprune import OTPrune


@given(tokens=token_matrices(max_n=8), data=st.data())
def test_the_value_reached_is_that_of_greedy_on_the_formula_itself(tokens, data):
    k = data.draw(st.integers(1, len(tokens)))
    kernel = otprune_kernel(tokens)
    picks = OTPrune(accumulate="float64").rank(tokens, k).tolist()
    greedy = brute_greedy(lambda s: logdet(kernel, s), len(tokens), k)
    torch.testing.assert_close(logdet(kernel, picks), logdet(kernel, greedy), rtol=1e-7, atol=1e-9)


@given(tokens=token_matrices(max_n=8), data=st.data())
def test_the_papers_variant_uses_unit_variance_and_gamma_over_nk(tokens, data):
    n = len(tokens)
    k = data.draw(st.integers(1, n))
    v = tokens.double()
    v = v / v.square().mean(0).sqrt()
    w = v @ v.T
    kernel = torch.eye(n, dtype=torch.float64) + 0.3 / (n * k) * w @ w
    pruner = OTPrune(variant="paper", gamma=0.3, accumulate="float64")
    torch.testing.assert_close(pruner.kernel(tokens, k).dense(), kernel)
    greedy = brute_greedy(lambda s: logdet(kernel, s), n, k)
    picks = pruner.rank(tokens, k).tolist()
    torch.testing.assert_close(logdet(kernel, picks), logdet(kernel, greedy), rtol=1e-7, atol=1e-9)


@given(tokens=token_matrices(min_n=2), data=st.data())
@settings(max_examples=20)
def test_scaling_a_channel_changes_nothing(tokens, data):
    k = data.draw(st.integers(1, len(tokens)))
    scale = torch.exp2(torch.randint(-8, 8, (tokens.shape[1],)).float())  # exact in binary
    pruner = OTPrune(accumulate="float64")
    assert pruner.rank(tokens, k).tolist() == pruner.rank(tokens * scale, k).tolist()


@pytest.mark.parametrize("arithmetic", ["fast", "reference"])
def test_an_all_zero_channel_is_as_if_it_were_not_there(arithmetic, rng):
    tokens = torch.randn(30, 8, generator=rng)
    padded = torch.cat([tokens[:, :3], torch.zeros(30, 1), tokens[:, 3:]], dim=1)
    pruner = OTPrune(arithmetic=arithmetic)
    assert pruner.rank(tokens, 12).tolist() == pruner.rank(padded, 12).tolist()


@pytest.mark.parametrize("factor", [1e25, 1e11, 1e-11, 1e-25])
def test_tokens_whose_squares_leave_float32_are_rescaled(factor, rng):
    tokens = torch.randn(30, 8, generator=rng)
    assert OTPrune().rank(tokens * factor, 12).tolist() == OTPrune().rank(tokens, 12).tolist()


def test_variants_differ_on_real_tokens_and_settings_matter():
    tokens = real_tokens()["astronaut"]
    kept = {
        name: frozenset(make_pruner("otprune", **chosen).select(tokens, 56).tolist())
        for name, chosen in {
            "code": {},
            "paper": {"variant": "paper"},
            "large gamma": {"gamma": 10.0},
        }.items()
    }
    assert len(set(kept.values())) == 3


def test_fast_and_reference_arithmetic_keep_the_same_real_tokens():
    for tokens in real_tokens().values():
        fast = OTPrune().select(tokens, 56)
        plain = OTPrune(arithmetic="reference").select(tokens, 56)
        assert len(set(fast.tolist()) & set(plain.tolist())) >= 55


def test_the_reference_order_holds_the_same_tokens():
    tokens = real_tokens()["coffee"]
    scrambled = OTPrune(order="reference").select(tokens, 56).tolist()
    ascending = OTPrune().select(tokens, 56).tolist()
    assert scrambled != ascending
    assert sorted(scrambled) == ascending


def test_only_the_codes_variant_is_nested():
    assert OTPrune().nested
    assert not OTPrune(variant="paper").nested


@pytest.mark.parametrize("gamma", [-0.01, 0, float("nan"), float("inf"), "0.01", True])
def test_a_gamma_that_is_not_positive_is_refused(gamma):
    with pytest.raises(ValueError, match="gamma must be a finite number > 0, got"):
        OTPrune(gamma=gamma)


@pytest.mark.parametrize("gamma", [1e-50, 1e300])
def test_a_gamma_that_float32_cannot_carry_is_refused(gamma):
    with pytest.raises(ValueError, match=r"gamma must lie in 1e-12\.\.1e12, got"):
        OTPrune(gamma=gamma)


@pytest.mark.parametrize(
    "setting",
    [{"variant": "Code"}, {"order": "sorted"}, {"accumulate": "fp16"}, {"arithmetic": ""}],
)
def test_an_unknown_choice_is_refused_with_the_known_ones(setting):
    with pytest.raises(ValueError, match="must be one of"):
        OTPrune(**setting)


def test_rows_in_the_models_dtype_imply_the_reference_arithmetic(rng):
    tokens = torch.randn(60, 20, generator=rng).half()
    implied = OTPrune(accumulate="model").rank(tokens, 20)
    spelled = OTPrune(accumulate="model", arithmetic="reference").rank(tokens, 20)
    assert torch.equal(implied, spelled)


def test_the_papers_variant_is_the_same_in_both_arithmetics(rng):
    tokens = torch.randn(60, 20, generator=rng)
    fast = OTPrune(variant="paper", gamma=50.0, accumulate="float64")
    plain = OTPrune(variant="paper", gamma=50.0, accumulate="float64", arithmetic="reference")
    assert plain.rank(tokens, 20).tolist() == fast.rank(tokens, 20).tolist()
    full = plain._released_kernel(tokens, 20)
    torch.testing.assert_close(full, fast.kernel(tokens, 20).dense())


def auto_kernel(tokens):
    """I + g W², in float64, g such that the diagonal of g W² has the mean 10."""
    v = tokens.double()
    v = v / v.norm(dim=0).masked_fill(v.norm(dim=0) == 0, 1.0)
    squared = torch.linalg.matrix_power(v @ v.T, 2)
    return torch.eye(len(v), dtype=torch.float64) + 10 * squared / squared.diagonal().mean()


@pytest.mark.parametrize("variant", ["code", "paper"])
@pytest.mark.parametrize(("n", "d"), [(20, 30), (60, 8)])
def test_auto_gives_the_signal_ten_times_the_mean_diagonal_of_the_ridge(variant, n, d, rng):
    tokens = torch.randn(n, d, generator=rng) + torch.randn(d, generator=rng)
    tokens[:, 1] = 0
    pruner = OTPrune("auto", variant=variant, accumulate="float64")
    kernel = pruner.kernel(tokens, 5).dense()
    torch.testing.assert_close(kernel, auto_kernel(tokens))
    torch.testing.assert_close(kernel.diagonal().mean(), torch.tensor(11.0).double())
    assert pruner.nested


@given(tokens=token_matrices(max_n=8), data=st.data())
@settings(max_examples=30)
def test_auto_reaches_the_value_of_greedy_on_its_own_kernel(tokens, data):
    k = data.draw(st.integers(1, len(tokens)))
    kernel = auto_kernel(tokens)
    picks = OTPrune("auto", accumulate="float64").rank(tokens, k).tolist()
    greedy = brute_greedy(lambda s: logdet(kernel, s), len(tokens), k)
    torch.testing.assert_close(logdet(kernel, picks), logdet(kernel, greedy), rtol=1e-7, atol=1e-9)


def test_auto_depends_on_neither_scale_nor_order_nor_batch():
    pruner = make_pruner("otprune", preset="auto")
    images = [one[:n] for one, n in zip(real_tokens().values(), (576, 200, 90, 576), strict=True)]
    together = pruner.select_batch(images, 20)
    for tokens, kept in zip(images, together, strict=True):
        assert pruner.select(tokens, 20).tolist() == kept.tolist()
        assert pruner.select(tokens * 2.0**9, 20).tolist() == kept.tolist()
        back = torch.arange(len(tokens)).flip(0)
        assert sorted(back[pruner.select(tokens.flip(0), 20)].tolist()) == kept.tolist()
        plain = make_pruner("otprune", preset="auto", arithmetic="reference")
        assert len(set(plain.select(tokens, 20).tolist()) & set(kept.tolist())) >= 19


def test_auto_picks_the_first_tokens_of_an_image_of_zeros():
    for arithmetic in ("fast", "reference"):
        pruner = OTPrune("auto", arithmetic=arithmetic)
        assert pruner.rank(torch.zeros(6, 4), 3).tolist() == [0, 1, 2]
        assert pruner.kernel(torch.zeros(6, 4), 3).dense().equal(torch.eye(6))


@pytest.mark.parametrize("gamma", ["Auto", "0.1", 0, float("nan"), True])
def test_other_gammas_are_refused(gamma):
    with pytest.raises(ValueError, match="gamma must"):
        OTPrune(gamma)
