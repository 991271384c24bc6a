"""Caches, losses and ways of generating that pruning inside the language model meets."""

import pytest
import torch
from transformers import DynamicCache, GenerationConfig, StaticCache

from masked import ROWS, model_of, request
from otprune.pruning import make_pruning


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
        model_of().generate(**request(), pruning=make_pruning("otprune", k=9, layer=2), **arguments)


def test_caches_that_cannot_be_ragged_or_are_not_empty_are_refused():
    model = model_of()
    pruning = make_pruning("otprune", k=9, layer=2)
    static = StaticCache(config=model.config, max_cache_len=700)
    with pytest.raises(ValueError, match="needs a DynamicCache, .* got StaticCache"):
        model(**request(ROWS[:1]), pruning=pruning, past_key_values=static)
    used = DynamicCache(config=model.config)
    with torch.no_grad():
        model(input_ids=torch.tensor([[1, 2, 3]]), past_key_values=used)
        with pytest.raises(ValueError, match="before anything is cached"):
            model.generate(**request(ROWS[:1]), pruning=pruning, past_key_values=used)


PRUNING = make_pruning("otprune", k=12, layer=2)


def test_each_prompt_needs_a_cache_of_its_own():
    model = model_of()
    cache = DynamicCache(config=model.config)
    model.generate(**request(ROWS[:1]), pruning=PRUNING, past_key_values=cache, max_new_tokens=2)
    longer = request([[*ROWS[0], -200, 5]])
    with pytest.raises(ValueError, match="before anything is cached"):
        model.generate(**longer, pruning=PRUNING, past_key_values=cache, max_new_tokens=2)
    with pytest.raises(ValueError, match=r"cache of its own .* hold 21 to 585 positions"):
        model.generate(torch.tensor([[5, 6]]), past_key_values=cache, max_new_tokens=2)


def test_an_emptied_cache_is_as_good_as_new():
    model = model_of()
    cache, fresh = DynamicCache(config=model.config), DynamicCache(config=model.config)
    with torch.no_grad():
        model(**request(ROWS[1:2]), pruning=PRUNING, past_key_values=cache)
        cache.reset()
        for pruning in (PRUNING, None):
            again = model(**request(ROWS[:1]), pruning=pruning, past_key_values=cache).logits
            want = model(**request(ROWS[:1]), pruning=pruning, past_key_values=fresh).logits
            assert torch.equal(again, want)
            cache.reset()
            fresh = DynamicCache(config=model.config)


def labelled():
    batch = request(ROWS[:1])
    return batch | {"labels": batch["input_ids"].masked_fill(batch["input_ids"] == -200, -100)}


def test_the_loss_is_llama_s_own_with_its_arguments():
    model = model_of()
    with torch.no_grad():
        for pruning in (None, PRUNING):
            mean = model(**labelled(), pruning=pruning)
            summed = model(**labelled(), pruning=pruning, num_items_in_batch=100)
            # Seven of the eight text tokens are predicted: the first has nothing before it.
            assert float(summed.loss) == pytest.approx(float(mean.loss) * 7 / 100, rel=1e-5)
            assert list(mean) == ["loss", "logits", "past_key_values"]
            assert mean[0] is mean.loss
            as_tuple = model(**labelled(), pruning=pruning, return_dict=False)
            assert isinstance(as_tuple, tuple)
            assert torch.equal(as_tuple[0], mean.loss)
            assert torch.equal(as_tuple[1], mean.logits)
            assert isinstance(model(**request(ROWS[:1]), pruning=pruning, return_dict=False), tuple)


def test_hidden_states_shrink_from_the_stage_on():
    model = model_of()
    with torch.no_grad():
        out = model(**labelled(), pruning=PRUNING, output_hidden_states=True)
    assert [len(state[0]) for state in out.hidden_states] == [584, 584, 584, 20, 20]


def test_checkpointed_gradients_are_the_same():
    model = model_of()
    weight = model.model.layers[0].mlp.up_proj.weight
    gradients = []
    try:
        for checkpointed in (False, True):
            if checkpointed:
                model.activation_checkpointing_enable()
                model.train()
            model.zero_grad()
            model(**labelled(), pruning=PRUNING, use_cache=False).loss.backward()
            gradients.append(weight.grad.clone())
    finally:
        model.activation_checkpointing_disable()
        model.eval()
        model.zero_grad()
    assert gradients[0].abs().max() > 0
    assert torch.allclose(*gradients, atol=1e-7)


@pytest.mark.parametrize("where", ["call", "generation_config", "model"])
def test_settings_that_do_not_go_together_are_found_wherever_they_are(where, monkeypatch):
    model = model_of()
    arguments = {"prompt_lookup_num_tokens": 3} if where == "call" else {}
    if where == "generation_config":
        arguments["generation_config"] = GenerationConfig(prompt_lookup_num_tokens=3)
    if where == "model":
        monkeypatch.setattr(model.generation_config, "prompt_lookup_num_tokens", 3)
    with pytest.raises(ValueError, match="does not go with prompt_lookup_num_tokens=3"):
        model.generate(**request(ROWS[:1]), pruning=PRUNING, max_new_tokens=2, **arguments)


@pytest.mark.parametrize("pruning", [None, PRUNING])
def test_early_exit_is_refused_before_it_can_spoil_the_model(pruning):
    model = model_of()
    with pytest.raises(ValueError, match="does not go with assistant_early_exit=1"):
        model.generate(**request(ROWS[:1]), pruning=pruning, assistant_early_exit=1)
    assert model.config.num_hidden_layers == 4


def test_prompt_lookup_without_pruning_inside_is_the_same_answer():
    model = model_of()
    arguments = {**request(ROWS[:1]), "pruning": make_pruning("otprune", k=9), "max_new_tokens": 8}
    assert torch.equal(
        model.generate(**arguments), model.generate(**arguments, prompt_lookup_num_tokens=2)
    )


def test_images_after_something_is_cached_are_refused():
    model = model_of()
    batch = request(ROWS[:1])
    with torch.no_grad():
        cache = model(**batch, use_cache=True).past_key_values
        with pytest.raises(ValueError, match="images go with the prompt's ids"):
            model(torch.tensor([[5]]), visual=batch["visual"], past_key_values=cache)
        with pytest.raises(ValueError, match="an <image> must stand in the prompt"):
            model(torch.tensor([[5, -200]]), past_key_values=cache)
        with pytest.raises(ValueError, match="images go with the prompt's ids"):
            model(inputs_embeds=torch.zeros(1, 3, 64), visual=batch["visual"])


def test_positions_of_one_s_own_are_refused_with_ids():
    with pytest.raises(ValueError, match="position_ids follow from attention_mask"):
        model_of()(torch.tensor([[1, 2, 3]]), position_ids=torch.tensor([[0, 1, 2]]))


def test_compiled_layers_are_left_alone_or_refused():
    model = model_of()
    compiled = torch.compile(model.model, fullgraph=True, backend="eager")
    embeds = torch.randn(1, 6, 64)
    with torch.no_grad():
        want = model.model(inputs_embeds=embeds, use_cache=False).last_hidden_state
        got = compiled(inputs_embeds=embeds, use_cache=False).last_hidden_state
    assert torch.allclose(got, want, atol=1e-6)


def test_a_run_that_no_layer_notices_is_an_error(monkeypatch):
    model = model_of()
    monkeypatch.setattr("torch.compiler.is_compiling", lambda: True)
    with torch.no_grad(), pytest.raises(RuntimeError, match="was not carried out"):
        model(**request(ROWS[:1]), pruning=PRUNING)
    monkeypatch.undo()
    with torch.no_grad():
        cache = model(**request(ROWS[:1]), pruning=PRUNING, use_cache=True).past_key_values
        monkeypatch.setattr("torch.compiler.is_compiling", lambda: True)
        with pytest.raises(RuntimeError, match="went past its hooks"):
            model(torch.tensor([[5]]), past_key_values=cache)


def test_text_may_follow_a_pruned_prompt_and_its_answer():
    model = model_of()
    more = torch.tensor([[70, 71, 72]])
    with torch.no_grad():
        cache = model(**request(ROWS[:1]), pruning=PRUNING, use_cache=True).past_key_values
        at_once = model(input_ids=more, past_key_values=cache).logits[0, -1]
        cache = model(**request(ROWS[:1]), pruning=PRUNING, use_cache=True).past_key_values
        for token in more[0]:
            one_by_one = model(input_ids=token.view(1, 1), past_key_values=cache).logits[0, -1]
    assert torch.allclose(at_once, one_by_one, atol=1e-5)
