"""A prompt that is longer than the model takes is cut and counted, and costs no more than it."""

import pytest
import torch

from helpers import loaded, request, tiny
from llava.constants import DEFAULT_IMAGE_TOKEN, IMAGE_TOKEN_INDEX
from llava.mm_utils import tokenizer_image_token
from otprune_lmms.engine import Engine, RequestError
from otprune_lmms.journal import Journal
from otprune_lmms.models.long_prompts import PromptBound
from otprune_lmms.pruning_config import PruningConfig

UNPRUNED, PRUNED = PruningConfig(), PruningConfig.make("otprune", 0.1)


@pytest.fixture
def short(monkeypatch):
    """The tiny model, whose prompts may have 640 positions."""
    monkeypatch.setattr(loaded()[1].config, "tokenizer_model_max_length", 640, raising=False)
    return tiny()


def run(model, asked, **settings):
    engine = Engine(model, model_name="tiny", workers=0, progress=False, **settings)
    return engine.run(asked, [UNPRUNED, PRUNED])


def test_a_prompt_that_fits_pruned_only_is_counted_in_the_unpruned_row(short, tmp_path):
    asked = [request(0), request(1, "word " * 40)]
    for _ in range(2):
        with Journal(tmp_path) as journal:
            answers = run(short, asked, journal=journal, batch_size=2)
        lost = short.token_ids(answers.prepared(asked[1]).prompt).numel() - 1 + 576 - 640
        found = {(c, r.doc_id): a.truncated for (c, r), a in answers.items()}
        assert found == {(UNPRUNED, 0): 0, (UNPRUNED, 1): lost, (PRUNED, 0): 0, (PRUNED, 1): 0}
    assert (lost, answers.counts.generated) == (max(lost, 1), 0)


@pytest.mark.parametrize("limit", [None, 640])
@pytest.mark.parametrize("letters", ["x", "é\n"])
def test_a_prompt_of_a_megabyte_is_cut_before_it_is_embedded(limit, letters, monkeypatch):
    config = loaded()[1].config
    monkeypatch.setattr(config, "tokenizer_model_max_length", limit, raising=False)
    monkeypatch.setattr(config, "max_position_embeddings", 700)
    model, seen = tiny(), []
    embed = loaded()[1].model.embed_tokens
    hook = embed.register_forward_pre_hook(lambda _, given: seen.append(given[0].numel()))
    long = request(0, letters * (1_000_000 // len(letters)), generation={"max_new_tokens": 1})
    with pytest.raises(RequestError, match="continuation at its end is cut"):
        run(model, [request(0, long.context, kind="loglikelihood", continuation="yes")])
    answers = run(model, [long])
    hook.remove()
    assert max(seen) <= (limit or 700) + 2
    assert all(answer.truncated > 0 for answer in answers.values())


def test_what_fits_is_unchanged_and_what_is_read_of_the_rest_too():
    tokenizer = loaded()[0]
    bound = PromptBound(60, tokenizer, DEFAULT_IMAGE_TOKEN, IMAGE_TOKEN_INDEX)
    for text in ("a question?", "an image <image> and " * 9, "x" * 99, "long and wide, " * 5000):
        ids = torch.tensor(tokenizer_image_token(text, tokenizer))
        cut = torch.tensor(tokenizer_image_token(bound.text(text), tokenizer))
        assert bound.ids(cut)[:61].tolist() == ids[:61].tolist()
        assert (bound.ids(cut) == IMAGE_TOKEN_INDEX).sum() == (ids == IMAGE_TOKEN_INDEX).sum()
    late = "word " * 5000 + "<image>" * 3
    assert bound.text(late).count("<image>") == 3
