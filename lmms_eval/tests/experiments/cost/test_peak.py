"""Peak memory."""

from pathlib import Path

import pytest
import torch

from otprune_lmms.experiments.cost import peak
from otprune_lmms.experiments.cost.peak import peak_of

MIB = 2**20


def touch(mib: int) -> None:
    assert float(torch.ones(mib * MIB // 4).sum()) > 0


def test_what_a_call_holds_for_a_moment_is_seen():
    if peak_of(lambda: None, []).added is None:
        pytest.skip("the mark of the largest memory cannot be set back here")
    small, large = (peak_of(lambda size=size: touch(size), []) for size in (8, 96))
    assert 90 * MIB < large.added < 160 * MIB
    assert small.added < 60 * MIB
    assert large.whole > large.added
    again = peak_of(lambda: touch(8), [])
    assert again.added < 60 * MIB, "an earlier peak is no later one's"


def test_without_a_way_to_set_it_back_only_the_whole_is_known(monkeypatch, tmp_path):
    monkeypatch.setattr(peak, "_CLEAR", tmp_path / "none" / "clear_refs")
    found = peak_of(lambda: touch(8), [])
    assert found.added is None
    assert found.whole > 8 * MIB
    monkeypatch.setattr(peak, "_STATUS", Path(tmp_path / "status"))
    assert peak_of(lambda: None, []).whole == pytest.approx(found.whole, rel=0.1)


@pytest.mark.gpu
def test_a_gpus_peak_is_that_of_its_allocator():
    gpu = torch.device("cuda", 0)
    held = torch.ones(4 * MIB, device=gpu)
    found = peak_of(lambda: torch.ones(16 * MIB, device=gpu).sum(), [gpu])
    assert found.added == pytest.approx(64 * MIB, rel=0.05)
    assert found.whole >= found.added + held.nbytes
