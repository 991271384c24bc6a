"""Caches, losses and ways of generating that pruning inside the language model meets."""

import pytest
import torch
from transformers import DynamicCache, StaticCache

from llava.pruning import prune
from masked import ROWS, model_of, request


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"cache_implementation": "static"}, "does not go with cache_implementation='static'"),
        ({"prompt_lookup_num_tokens": 3}, "does not go with prompt_lookup_num_tokens=3"),
        ({"prefill_chunk_size": 8}, "does not go with prefill_chunk_size=8"),
        ({"assistant_model": "any"}, "does not go with assistant_model='any'"),
    ],
)
def test_ways_of_generating_that_cut_caches_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        model_of().generate(**request(), pruning=prune("otprune", k=9, layer=2), **arguments)


def test_caches_that_cannot_be_ragged_or_are_not_empty_are_refused():
    model = model_of()
    pruning = prune("otprune", k=9, layer=2)
    static = StaticCache(config=model.config, max_cache_len=700)
    with pytest.raises(ValueError, match="needs a DynamicCache, .* got StaticCache"):
        model(**request(ROWS[:1]), pruning=pruning, past_key_values=static)
    used = DynamicCache(config=model.config)
    with torch.no_grad():
        model(input_ids=torch.tensor([[1, 2, 3]]), past_key_values=used)
        with pytest.raises(ValueError, match="the cache holds 3 positions already"):
            model.generate(**request(ROWS[:1]), pruning=pruning, past_key_values=used)
