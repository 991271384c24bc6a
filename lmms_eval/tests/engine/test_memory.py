"""Out of memory: halved, said, and never another answer."""

import pytest
import torch

from helpers import PICTURES, loaded, request, tiny
from otprune_lmms.engine import Engine, RequestError
from otprune_lmms.engine.memory import Halving, TooLargeError, is_out_of_memory
from otprune_lmms.journal import Journal
from otprune_lmms.pruning_config import PruningConfig

ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB"),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried ..."),
    MemoryError(),
]


def limited(monkeypatch, most: int, error: BaseException) -> list[int]:
    """Let the model fail with more than ``most`` rows; return the sizes that were tried."""
    model, tried = loaded()[1], []
    whole = type(model).generate

    def generate(self, inputs, **kwargs):
        tried.append(len(inputs))
        if len(inputs) > most:
            raise error
        return whole(self, inputs, **kwargs)

    monkeypatch.setattr(type(model), "generate", generate)
    return tried


def engine(**settings) -> Engine:
    return Engine(tiny(), model_name="tiny", workers=0, progress=False, **settings)


REQUESTS = [request(i, f"What is {i}?", ()) for i in range(8)]
PICTURED = [request(i, pictures=(name,)) for i, name in enumerate(PICTURES)]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_the_batch_is_halved_and_the_answers_stay(monkeypatch, caplog, error):
    want = engine().run(REQUESTS, [PruningConfig()])
    tried = limited(monkeypatch, 2, error)
    found = engine(batch_size=8).run(REQUESTS, [PruningConfig()])
    assert {r: a.text for (_, r), a in found.items()} == {r: a.text for (_, r), a in want.items()}
    assert tried == [8, 4, 2, 2, 2, 2], "what does not fit is not tried again"
    assert found.counts.halvings == 2
    assert "out of memory with 8 of rows of unpruned: going on with 4" in caplog.text


def test_what_was_answered_before_one_row_did_not_fit_is_kept_and_the_row_is_named(
    monkeypatch, tmp_path
):
    model = loaded()[1]
    whole = type(model).generate
    with Journal(tmp_path) as journal:
        runner = engine(batch_size=4, journal=journal)

        def generate(self, inputs, **kwargs):
            if len(journal) == 4:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return whole(self, inputs, **kwargs)

        monkeypatch.setattr(type(model), "generate", generate)
        with pytest.raises(RequestError, match=r"document \d+ of task .* alone does not fit"):
            runner.run(REQUESTS, [PruningConfig()])
        assert len(journal) == 4
    monkeypatch.undo()
    with Journal(tmp_path) as journal:
        assert engine(journal=journal).run(REQUESTS, [PruningConfig()]).counts.generated == 4


def test_the_tower_too_is_given_less(monkeypatch):
    model = loaded()[1]
    whole = type(model).encode_visual
    want = engine().run(PICTURED, [PruningConfig()])

    def encode(self, images, *rest, **more):
        if len(images) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return whole(self, images, *rest, **more)

    monkeypatch.setattr(type(model), "encode_visual", encode)
    found = engine(batch_size=8).run(PICTURED, [PruningConfig()])
    assert found.counts.halvings == 2
    assert {r: a.text for (_, r), a in found.items()} == {r: a.text for (_, r), a in want.items()}


def test_other_errors_are_not_taken_for_a_lack_of_memory(monkeypatch):
    limited(monkeypatch, 0, RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        engine(batch_size=4).run(REQUESTS, [PruningConfig()])
    assert not is_out_of_memory(ValueError("out of memory"))
    assert all(map(is_out_of_memory, ERRORS))


def test_pieces_cover_everything_once_whatever_fits():
    for fits in (1, 2, 3, 5, 7):
        halving = Halving()

        def work(piece, fits=fits):
            if len(piece) > fits:
                raise MemoryError
            return [10 * item for item in piece]

        pieces = list(halving.run("kind", list(range(7)), work))
        assert [item for piece, _ in pieces for item in piece] == list(range(7))
        assert [r for _, results in pieces for r in results] == [10 * i for i in range(7)]


def test_one_item_that_does_not_fit_is_the_error():
    def work(piece):
        raise MemoryError

    with pytest.raises(TooLargeError) as caught:
        list(Halving().run("kind", ["huge"], work))
    assert caught.value.item == "huge"
