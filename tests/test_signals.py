import dataclasses

import pytest
import torch

from helpers import known_signals
from otprune import Selector, Signals
from otprune.signals import ONE_AXIS, TEXT_SIGNALS, TOKEN_AXIS, signal_shape


@pytest.mark.parametrize("grid", [(0, 5), (5, -1), (2.0, 3), (True, 3)])
def test_a_grid_that_is_no_pair_of_counts_is_refused(grid):
    with pytest.raises(ValueError, match=r"grid (rows|columns) must be an integer >= 1"):
        Signals(grid=grid)


@pytest.mark.parametrize("grid", [(1,), (1, 2, 3), 24])
def test_a_grid_that_is_no_pair_is_refused(grid):
    with pytest.raises(ValueError, match=r"grid must be \(rows, columns\)"):
        Signals(grid=grid)


@pytest.mark.parametrize("image_id", [-1, 1.5, "a"])
def test_an_image_id_that_is_no_count_is_refused(image_id):
    with pytest.raises(ValueError, match="image_id must be an integer >= 0"):
        Signals(image_id=image_id)


@dataclasses.dataclass(frozen=True, slots=True)
class MostAttended(Selector):
    """A method that needs a signal; one file, as docs/add-a-method.md has it."""

    needs = frozenset({"cls_attention"})

    def _rank_image(self, tokens, k, signals):
        return signals.cls_attention.mean(0).argsort(descending=True, stable=True)[:k]


def test_a_selector_gets_the_signal_that_it_needs():
    attention = torch.tensor([[0.1, 0.5, 0.4], [0.1, 0.7, 0.2]])
    kept = MostAttended().select(torch.randn(3, 4), 2, signals=Signals(cls_attention=attention))
    assert kept.tolist() == [1, 2]


def test_a_missing_signal_is_named_with_its_image():
    with pytest.raises(ValueError, match=r"MostAttended needs signals\.cls_attention for image 0"):
        MostAttended().select(torch.randn(3, 4), 2)


@pytest.mark.parametrize(
    ("signals", "message"),
    [
        (Signals(cls_attention=torch.ones(2, 4)), r"signals\.cls_attention .* n = 3 on axis 1"),
        (Signals(cls_attention=torch.ones(3)), r"signals\.cls_attention .* got shape \(3,\)"),
        (Signals(encoder_keys=torch.ones(4, 3)), r"signals\.encoder_keys .* n = 3 on axis 0"),
        (Signals(tiles=torch.zeros(4).long()), r"signals\.tiles .* n = 3 on axis 0 of one"),
        (Signals(tiles=torch.zeros(3, 1)), r"signals\.tiles .* got shape \(3, 1\)"),
        (Signals(final_cls_attention=torch.ones(4)), r"signals\.final_cls_attention .* n = 3"),
        (Signals(final_keys=torch.ones(4, 3)), r"signals\.final_keys .* n = 3 on axis 0"),
        (Signals(features=torch.ones(4, 3)), r"signals\.features .* n = 3 on axis 0 of two"),
        (Signals(clip_patches=torch.ones(2, 3)), r"signals\.clip_patches .* n = 3 on axis 0"),
        (Signals(grid=(2, 2)), r"signals\.grid of tokens must have n = 3 tokens, got 2 x 2"),
    ],
)
def test_a_signal_about_another_number_of_tokens_is_refused(signals, message):
    with pytest.raises(ValueError, match=message):
        MostAttended().select(torch.randn(3, 4), 2, signals=signals)


def everything(n: int) -> Signals:
    return Signals(
        grid=(1, n), image_id=3, tiles=torch.arange(n) % 2, **known_signals(torch.ones(n, 4))
    )


def test_there_is_a_made_up_value_for_every_signal():
    whole = everything(6)
    assert all(getattr(whole, field.name) is not None for field in dataclasses.fields(Signals))
    whole.check_size(6, "tokens")


def test_signals_about_tokens_and_about_the_question_are_fields():
    names = {field.name for field in dataclasses.fields(Signals)}
    assert set(TOKEN_AXIS) | TEXT_SIGNALS <= names
    assert set(TOKEN_AXIS) >= ONE_AXIS


@pytest.mark.parametrize("name", TOKEN_AXIS)
def test_a_signal_has_the_tokens_on_its_axis(name):
    value = torch.zeros(signal_shape(name, 5, 3), dtype=torch.int64)
    assert value.shape[TOKEN_AXIS[name]] == 5
    known = Signals(**{name: value})
    known.check_size(5, "tokens")
    with pytest.raises(ValueError, match=rf"signals\.{name} of tokens must have n = 4"):
        known.check_size(4, "tokens")


def test_taking_some_tokens_takes_what_is_known_about_them_and_leaves_the_rest():
    whole = everything(6)
    among = torch.tensor([4, 1])
    part = whole.take(among)
    part.check_size(2, "tokens")
    assert part.grid is None
    for name, axis in TOKEN_AXIS.items():
        assert torch.equal(getattr(part, name), getattr(whole, name).index_select(axis, among))
    for name in {field.name for field in dataclasses.fields(Signals)} - set(TOKEN_AXIS) - {"grid"}:
        assert getattr(part, name) is getattr(whole, name)


def test_taking_tokens_of_what_is_unknown_leaves_it_unknown():
    assert Signals(image_id=2).take(torch.tensor([0])) == Signals(image_id=2)


def test_moving_signals_moves_every_tensor():
    whole = everything(6)
    moved = whole.to(torch.device("meta"))
    for field in dataclasses.fields(Signals):
        value, other = getattr(whole, field.name), getattr(moved, field.name)
        if isinstance(value, torch.Tensor):
            assert other.device.type == "meta"
        else:
            assert other is value
