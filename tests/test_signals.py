import dataclasses

import pytest
import torch

from otprune import Selector, Signals


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
    """A method that needs a signal; one file, as README's "Add a method" has it."""

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
        (Signals(grid=(2, 2)), r"signals\.grid of tokens must have n = 3 cells, got 2 x 2"),
    ],
)
def test_a_signal_about_another_number_of_tokens_is_refused(signals, message):
    with pytest.raises(ValueError, match=message):
        MostAttended().select(torch.randn(3, 4), 2, signals=signals)
