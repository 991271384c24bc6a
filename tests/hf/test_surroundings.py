"""Pruned models as people load and call them: half precision, accelerate, pipelines, compiled."""

import copy

import pytest
import torch
from torch import nn

from hf.tiny_vlms import PLACEHOLDER, clone, tiny
from otprune.hf import UnsupportedModelError, pruned
from otprune.hf.families import family_of

WAYS = [
    ("llava", "visionzip", {"k": 6}),
    ("llava", "sparsevlm", {"schedule": "2:0.5/3:0.25"}),
    ("llava_next", "fastervlm", {"k": 9}),
    ("internvl", "scope", {"k": 4}),
    ("gemma3", "holov", {"k": 4}),
    ("gemma3", "transprune", {"schedule": "3:0.5", "observe_from": 1, "observe_to": 2}),
    ("qwen2_5_vl", "visionzip", {"k": 4}),
    ("glm4v", "fastv", {"schedule": "2:0.5"}),
]


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.no_grad():
        yield


def written(model, inputs, count=3, **settings):
    out = model.generate(**clone(inputs), max_new_tokens=count, do_sample=False, **settings)
    return out[:, inputs["input_ids"].shape[1] :]


def in_half(model, inputs):
    """A copy of a model and its inputs in bfloat16."""
    halved = {
        name: value.to(torch.bfloat16) if value.is_floating_point() else value
        for name, value in inputs.items()
    }
    return copy.deepcopy(model).to(torch.bfloat16), halved


@pytest.mark.parametrize("layer", [0, 2])
@pytest.mark.parametrize("name", ["llava", "llava_next", "gemma3", "qwen2_5_vl", "aya_vision"])
def test_bfloat16_gives_the_same_up_to_rounding(name, layer):
    model, inputs, images = tiny(name)
    half, halved = in_half(model, inputs)
    found = []
    for one, given in ((model, inputs), (half, halved)):
        with pruned(one, "random", k=4, layer=layer, seed=1) as trace:
            found.append(one(**clone(given)).logits[:, -1].float())
            assert written(one, given).shape == (2, 3)
        assert [len(kept) for kept in trace.kept[layer]] == [4] * len(images)
    plain = model(**clone(inputs)).logits[:, -1]
    off = float((found[0] - found[1]).norm() / found[0].norm())
    assert off < 0.1
    assert float((found[0] - plain).norm() / plain.norm()) > 2 * off


@pytest.mark.parametrize("name", ["llava", "internvl", "gemma3", "qwen2_5_vl", "mistral3"])
def test_signals_in_bfloat16_are_those_of_float32_up_to_rounding(name):
    model, inputs, _ = tiny(name)
    half, halved = in_half(model, inputs)
    wanted = family_of(model).gives & {"cls_attention", "received_attention", "features"}
    found = [family_of(one).encode(given, wanted).signals
             for one, given in ((model, inputs), (half, halved))]  # fmt: skip
    for ours, rounded in zip(*found, strict=True):
        for key in wanted:
            assert rounded[key].dtype == torch.bfloat16
            off = float((ours[key] - rounded[key].float()).norm() / ours[key].norm())
            assert off < 0.1


@pytest.mark.parametrize(("name", "method", "settings"), WAYS)
def test_a_model_dispatched_by_accelerate(name, method, settings):
    accelerate = pytest.importorskip("accelerate")
    model, inputs, _ = tiny(name)
    with pruned(model, method, **settings):
        wanted = written(model, inputs)
    devices = {part: "cpu" for part, _ in model.named_children()}
    dispatched = copy.deepcopy(model)
    accelerate.dispatch_model(dispatched, devices, main_device="cpu", force_hooks=True)
    assert hasattr(dispatched.model.language_model, "_hf_hook")
    with pruned(dispatched, method, **settings):
        assert torch.equal(written(dispatched, inputs), wanted)


@pytest.mark.filterwarnings("ignore:You are calling .generate:UserWarning")  # transformers 5.18
def test_offloaded_weights_come_back_or_are_named():
    accelerate = pytest.importorskip("accelerate")
    for name, method, settings in (WAYS[0], WAYS[3], WAYS[5], WAYS[6]):
        model, inputs, _ = tiny(name)
        with pruned(model, method, **settings):
            wanted = written(model, inputs)
        away = copy.deepcopy(model)
        accelerate.cpu_offload(away, execution_device=torch.device("cpu"))
        with pruned(away, method, **settings):
            assert torch.equal(written(away, inputs), wanted)
    for name, method, message in (
        ("llava_next", "otprune", "image_newline of llava_next must not be offloaded"),
        ("llava", "downsample", "vision encoder of llava must not be offloaded"),
    ):
        model, inputs, _ = tiny(name)
        away = copy.deepcopy(model)
        accelerate.cpu_offload(away, execution_device=torch.device("cpu"))
        with pruned(away, method, k=9), pytest.raises(UnsupportedModelError, match=message):
            away(**clone(inputs))


class Quantised(nn.Module):
    """A linear layer whose weights are bytes, as those of 4-bit and 8-bit libraries."""

    def __init__(self, linear):
        super().__init__()
        self.scale = float(linear.weight.abs().max()) / 127
        rounded = (linear.weight / self.scale).round() + 128
        self.weight = nn.Parameter(rounded.to(torch.uint8), requires_grad=False)
        self.bias = linear.bias

    @property
    def whole(self):
        return (self.weight.float() - 128) * self.scale

    def forward(self, vectors):
        if not vectors.is_floating_point():
            raise TypeError(f"vectors must be floating point numbers, got {vectors.dtype}")
        return nn.functional.linear(vectors, self.whole, self.bias)


@pytest.mark.parametrize(("name", "method", "settings"), WAYS)
def test_quantised_layers_are_asked_and_not_read(name, method, settings):
    model, inputs, _ = tiny(name)
    plain, quantised = copy.deepcopy(model), copy.deepcopy(model)
    for path, linear in list(plain.named_modules()):
        # The head may share its weights with the embeddings.
        if isinstance(linear, nn.Linear) and path != "lm_head":
            one = Quantised(linear)
            # The same numbers in ordinary layers.
            linear.weight.data = one.whole
            parent, _, own = path.rpartition(".")
            setattr(quantised.get_submodule(parent), own, one)
    found = []
    for one in (plain, quantised):
        with pruned(one, method, **settings):
            found.append(one(**clone(inputs)).logits)
    assert float((found[0] - found[1]).abs().max()) <= 1e-5


@pytest.mark.parametrize(("name", "method", "settings"), WAYS)
def test_speculative_decoding_writes_the_same(name, method, settings):
    model, inputs, _ = tiny(name)
    row = inputs["input_ids"][1][inputs["attention_mask"][1].bool()][None]
    one = {"input_ids": row, "attention_mask": torch.ones_like(row)}
    for types in ("mm_token_type_ids", "token_type_ids"):
        if types in inputs:
            one[types] = (row == PLACEHOLDER).to(inputs[types])
    if "image_grid_thw" in inputs:
        count = int(inputs["image_grid_thw"][-1].prod())
        one["pixel_values"] = inputs["pixel_values"][-count:]
        one["image_grid_thw"] = inputs["image_grid_thw"][-1:]
    else:
        for key in ("pixel_values", "image_sizes"):
            if key in inputs:
                one[key] = inputs[key][-1:]
    with pruned(model, method, **settings):
        wanted = written(model, one, 10)
        assert torch.equal(written(model, one, 10, prompt_lookup_num_tokens=3), wanted)


def test_a_pipeline_prunes():
    pytest.importorskip("PIL")
    tokenizers = pytest.importorskip("tokenizers")
    from PIL import Image
    from transformers import LlavaProcessor, PreTrainedTokenizerFast, pipeline
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    words = {"<pad>": 0, "<s>": 1, "</s>": 2, "<unk>": 3, "<image>": PLACEHOLDER}
    words |= {f"w{i}": i for i in range(4, 512) if i != PLACEHOLDER}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    processor = LlavaProcessor(
        CLIPImageProcessorPil(
            size={"shortest_edge": 112}, crop_size={"height": 112, "width": 112}
        ),
        PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>",
            additional_special_tokens=["<image>"],
        ),
        patch_size=14, vision_feature_select_strategy="default", image_token="<image>",
        num_additional_image_tokens=1,
        chat_template="{% for part in messages[0]['content'] %}"
        "{{ '<image> ' if part['type'] == 'image' else part['text'] }}{% endfor %}",
    )  # fmt: skip
    model = tiny("llava").model
    pipe = pipeline("image-text-to-text", model=model, processor=processor)
    pixels = torch.randint(0, 256, (150, 130, 3), dtype=torch.uint8)
    image = Image.frombytes("RGB", (130, 150), pixels.numpy().tobytes())
    parts = [{"type": "image", "image": image}, {"type": "text", "text": "w10 w20 w30"}]
    asked = [{"role": "user", "content": parts}]
    told = {"max_new_tokens": 4, "do_sample": False}

    def answer():
        return pipe(text=asked, generate_kwargs=told, return_full_text=False)[0]["generated_text"]

    plain = answer()
    with pruned(model, "otprune", k=3, tokenizer=processor) as trace:
        found = answer()
        inputs = processor.apply_chat_template(
            asked, tokenize=True, return_dict=True, return_tensors="pt"
        )
        alone = written(model, inputs, 4)
    assert [len(kept) for kept in trace.kept[0]] == [3]
    assert found.split() == processor.batch_decode(alone)[0].split()
    assert found != plain


def test_compiled_models_are_pruned_before_the_decoder_and_refused_inside():
    model, inputs, _ = tiny("llava")
    compiled = copy.deepcopy(model)
    compiled.compile(backend="eager")
    with pruned(model, "fastervlm", k=6):
        wanted = model(**clone(inputs)).logits
    try:
        with pruned(compiled, "fastervlm", k=6):
            assert torch.equal(compiled(**clone(inputs)).logits, wanted)
        with (
            pruned(compiled, "fastv", schedule="2:0.4"),
            pytest.raises(RuntimeError, match=r"without their hooks \(torch.compile\?\)"),
        ):
            compiled(**clone(inputs))
    finally:
        torch._dynamo.reset()
    with (
        pytest.raises(UnsupportedModelError, match=r"model.compile\(\) compiles in place"),
        pruned(torch.compile(model, backend="eager"), "otprune", k=3),
    ):
        pass
