"""What methods may ask about images, against transformers' own modules."""

from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModel,
    Dinov2Config,
    Dinov2Model,
    SiglipVisionConfig,
    SiglipVisionModel,
)

from helpers import PARITY, largest, loaded
from llava.mm_utils import process_images
from llava.model.encoding import project
from llava.model.multimodal_encoder.builder import build_vision_tower
from llava.model.multimodal_encoder.tower import TOWER_SIGNALS
from llava.model.text import QuestionText
from masked import model_of
from otprune import LayerPruner, make_pruner
from otprune.pruning import make_pruning
from otprune.registry import PRUNERS
from small_images import small_request

V15, V16 = "checkpoints/tiny-llava-v1.5", "checkpoints/tiny-llava-v1.6"
SHAPE = {
    "hidden_size": 32,
    "num_hidden_layers": 5,
    "num_attention_heads": 4,
    "image_size": 28,
    "patch_size": 7,
}
FAMILIES = {
    "clip_vision_model": (CLIPVisionModel, CLIPVisionConfig, {"intermediate_size": 48}),
    "siglip_vision_model": (SiglipVisionModel, SiglipVisionConfig, {"intermediate_size": 48}),
    "dinov2": (Dinov2Model, Dinov2Config, {"mlp_ratio": 2}),
}
OF_CLS = {"cls_attention", "final_cls_attention", "cls_features"}
OF_PATCHES = {"encoder_keys", "final_keys", "features"}


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def both(kind: str, **more):
    """Our tower, and transformers' model with the same weights, of which none is small."""
    torch.manual_seed(0)
    model_class, config_class, extra = FAMILIES[kind]
    theirs = model_class._from_config(
        config_class(**SHAPE, **extra), attn_implementation="eager"
    ).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    raw = {"model_type": kind, **SHAPE, **extra}
    settings = SimpleNamespace(mm_vision_tower="tower", mm_vision_config=raw, **more)
    ours = build_vision_tower(settings).eval()
    ours.vision_tower.load_state_dict(theirs.state_dict())
    return ours, theirs


def pixels(count: int = 3, side: int = 28) -> torch.Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(1))


def by_hand(kind, theirs, number, states):
    """Keys of a block [b t c], and attention of the first token with all channels as one head."""
    if kind == "dinov2":
        block = theirs.encoder.layer[number]
        attention, norm = block.attention, block.norm1
    else:
        block = theirs.encoder.layers[number]
        attention, norm = block.self_attn, block.layer_norm1
    normed = norm(states)
    keys = torch.nn.functional.linear(normed, attention.k_proj.weight, attention.k_proj.bias)
    queries = torch.nn.functional.linear(normed, attention.q_proj.weight, attention.q_proj.bias)
    scores = torch.einsum("bc,btc->bt", queries[:, 0], keys) / keys.shape[-1] ** 0.5
    return keys, scores.exp() / scores.exp().sum(-1, keepdim=True)


@pytest.mark.parametrize("layer", [-2, -3, 2])
@pytest.mark.parametrize("kind", FAMILIES)
def test_signals_are_what_transformers_modules_give(kind, layer):
    ours, theirs = both(kind, mm_vision_select_layer=layer)
    cls = int(kind != "siglip_vision_model")
    wanted = OF_PATCHES | (OF_CLS if cls else set())
    got = ours.encode(pixels(), wanted).signals
    assert set(got) == wanted
    with torch.no_grad():
        out = theirs(pixels(), output_hidden_states=True, output_attentions=True)
        depth = layer if layer >= 0 else 6 + layer
        states = out.hidden_states[depth]
        before, _ = by_hand(kind, theirs, depth - 1, out.hidden_states[depth - 1])
        after, seen = by_hand(kind, theirs, depth, states)
    assert largest(got["features"] - states[:, cls:]) <= 2e-5
    assert largest(got["encoder_keys"] - before[:, cls:]) <= 2e-5
    assert largest(got["final_keys"] - after[:, cls:]) <= 2e-5
    if cls:
        assert largest(got["cls_features"] - states[:, 0]) <= 2e-5
        weights = out.attentions[depth - 1][:, :, 0, 1:]
        assert largest(got["cls_attention"] - weights) <= 1e-6
        assert largest(got["final_cls_attention"] - seen[:, 1:]) <= 1e-6
        assert got["final_cls_attention"].sum(1).max() < 1


@pytest.mark.parametrize("kind", FAMILIES)
def test_autocast_changes_no_signal_of_the_same_states(kind):
    ours, _ = both(kind)
    wanted = frozenset(OF_PATCHES | (OF_CLS if kind != "siglip_vision_model" else set()))
    before, states = torch.randn(2, 3, 17 if ours.has_cls else 16, 32)
    with torch.no_grad():
        want = ours._signals(before, states, wanted)
        with torch.autocast("cpu", torch.bfloat16):
            found = ours._signals(before, states, wanted)
            ours.encode(pixels(), wanted)
    for name, value in want.items():
        assert torch.equal(value, found[name]), name


@pytest.mark.parametrize("kind", FAMILIES)
def test_default_dtype_and_deterministic_algorithms_change_no_signal(kind):
    ours, _ = both(kind)
    wanted = frozenset(OF_PATCHES | (OF_CLS if kind != "siglip_vision_model" else set()))
    given = pixels()
    want = ours.encode(given, wanted).signals
    torch.set_default_dtype(torch.float64)
    torch.use_deterministic_algorithms(True)
    try:
        found = ours.encode(given, wanted).signals
    finally:
        torch.set_default_dtype(torch.float32)
        torch.use_deterministic_algorithms(False)
    for name, value in want.items():
        assert torch.equal(value, found[name]), name


def test_signals_alone_are_as_together():
    ours, _ = both("clip_vision_model")
    together = ours.encode(pixels(), TOWER_SIGNALS).signals
    for name, value in together.items():
        alone = ours.encode(pixels(), {name}).signals
        assert set(alone) == {name}
        assert torch.equal(alone[name], value)


def test_with_cls_among_the_features_all_signals_have_it_too():
    ours, _ = both("clip_vision_model", mm_vision_select_feature="cls_patch")
    found = ours.encode(pixels(), TOWER_SIGNALS)
    assert found.features.shape == (3, 17, 32)
    assert found.signals["final_cls_attention"].sum(1).tolist() == pytest.approx([1, 1, 1])
    assert found.signals["cls_attention"].sum(2).flatten().tolist() == pytest.approx([1] * 12)
    for name in ("features", "encoder_keys", "final_keys"):
        assert found.signals[name].shape == (3, 17, 32)


@pytest.mark.parametrize("signal", sorted(OF_CLS))
def test_a_tower_without_cls_says_so(signal):
    ours, _ = both("siglip_vision_model")
    with pytest.raises(ValueError, match=f"{signal} needs a CLS token, SiglipVisionTower has none"):
        ours.encode(pixels(), {signal})


@pytest.mark.parametrize("layer", [-1, 5])
def test_there_is_no_next_block_where_the_tower_ends(layer):
    ours, _ = both("clip_vision_model", mm_vision_select_layer=layer)
    for signal in ("final_keys", "final_cls_attention"):
        with pytest.raises(ValueError, match=f"{signal} needs a block after the selected hidden"):
            ours.encode(pixels(), {signal})
    ours.encode(pixels(), {"cls_attention", "encoder_keys", "features", "cls_features"})


def test_the_embeddings_alone_have_a_next_block():
    ours, theirs = both("clip_vision_model", mm_vision_select_layer=0)
    with torch.no_grad():
        states = theirs(pixels(), output_hidden_states=True).hidden_states[0]
        keys, _ = by_hand("clip_vision_model", theirs, 0, states)
    with pytest.raises(ValueError, match="signals come from a block"):
        ours.encode(pixels(), {"encoder_keys"})
    assert (
        largest(ours.encode(pixels(), {"cls_features"}).signals["cls_features"] - states[:, 0])
        <= 1e-5
    )
    del keys


@pytest.mark.parametrize("kind", FAMILIES)
def test_features_at_the_full_size_are_the_features(kind):
    ours, _ = both(kind)
    full = ours.encode(pixels()).features
    assert largest(ours.features_at(pixels(), 4, 4) - full) <= 2e-5


@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (3, 4), (4, 2)])
@pytest.mark.parametrize("kind", FAMILIES)
def test_features_of_a_smaller_image(kind, shape):
    ours, theirs = both(kind)
    found = ours.features_at(pixels(), *shape)
    assert found.shape == (3, shape[0] * shape[1], 32)
    assert found.isfinite().all()
    assert torch.equal(found, ours.features_at(pixels(), *shape))
    small = torch.nn.functional.interpolate(
        pixels(), (shape[0] * 7, shape[1] * 7), mode="bicubic", antialias=True
    )
    more = {} if kind == "dinov2" else {"interpolate_pos_encoding": True}
    with torch.no_grad():
        want = theirs(small, output_hidden_states=True, **more).hidden_states[-2]
    assert largest(found - want[:, int(kind != "siglip_vision_model") :]) <= 2e-5


def picture(name: str, checkpoint: str, signals: frozenset[str]):
    _, model, processor, _ = loaded(checkpoint)
    image = Image.open(PARITY / f"images/{name}.png").convert("RGB")
    tiles = process_images([image], processor, model.config)
    with torch.no_grad():
        return model, tiles, model.encode_visual(tiles, [image.size], signals)[0]


@pytest.mark.parametrize("name", ["land", "wide"])
def test_signals_of_several_tiles_follow_the_tokens(name):
    model, tiles, image = picture(name, V16, TOWER_SIGNALS)
    known, ends = image.signals, image.newline
    tower = model.get_vision_tower().encode(tiles[0], TOWER_SIGNALS)
    assert known.tiles.shape == (len(image),)
    assert torch.equal(known.tiles < 0, ends)
    assert known.tiles.unique().tolist() == [-1, *range(len(tiles[0]))]
    # Features go through the projector to the tokens: so each is where its token is.
    want = project(model.model, known.features[~ends])
    assert largest(want - image.tokens[~ends]) <= 1e-5
    for signal in ("features", "encoder_keys", "final_keys", "final_cls_attention"):
        values = getattr(known, signal)
        assert not values[ends].any()
        base = tower.signals[signal][0]
        assert largest(values[: len(base)] - base) <= 1e-5
    assert not known.cls_attention[:, ends].any()
    assert largest(known.cls_attention[:, :576] - tower.signals["cls_attention"][0]) <= 1e-6
    assert largest(known.cls_features - tower.signals["cls_features"]) <= 1e-5
    # Each token's features are those of the tile that it names, at one patch only.
    for tile in range(1, len(tiles[0])):
        mine = known.features[known.tiles == tile]
        theirs = {tuple(row) for row in tower.signals["features"][tile].tolist()}
        assert all(tuple(row) in theirs for row in mine.tolist())


def test_one_tile_has_no_numbers_and_signals_are_numbers_of_its_patches():
    model, tiles, image = picture("land", V15, TOWER_SIGNALS)
    assert image.signals.tiles is None
    assert image.signals.grid == (24, 24)
    assert image.signals.cls_features.shape == (1, 32)
    assert torch.equal(image.tokens, project(model.model, image.signals.features))


def test_an_image_encoded_again_at_its_size_gives_its_tokens():
    _, _, image = picture("land", V15, frozenset({"encode_at"}))
    assert largest(image.signals.encode_at(24, 24) - image.tokens) <= 2e-5
    assert image.signals.encode_at(5, 7).shape == (35, image.tokens.shape[1])
    _, _, anyres = picture("wide", V16, frozenset({"encode_at"}))
    assert largest(anyres.signals.encode_at(24, 24) - anyres.tokens[:576]) <= 2e-5


PRODUCTS = {"mm", "bmm", "addmm", "baddbmm", "linear", "matmul"}


class Products(TorchDispatchMode):
    """Counts matrix products, which inference mode hands on before taking them apart."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.overloadpacket.__name__ in PRODUCTS:
            self.count += 1
        return function(*args, **(kwargs or {}))


def products(call) -> int:
    with torch.no_grad(), Products() as counter:
        call()
    return counter.count


def test_what_is_not_asked_for_costs_no_product():
    _, model, processor, _ = loaded(V15)
    image = Image.open(PARITY / "images/land.png").convert("RGB")
    tiles = process_images([image], processor, model.config)
    plain = products(lambda: model.encode_visual(tiles))
    needs = make_pruning("otprune", keep_ratio=0.1).needs
    assert needs == frozenset()
    assert products(lambda: model.encode_visual(tiles, signals=needs)) == plain
    nothing = frozenset({"features", "cls_features"})
    assert products(lambda: model.encode_visual(tiles, signals=nothing)) == plain
    # Queries of CLS, keys, and their product; the same once more for the next block.
    one = products(lambda: model.encode_visual(tiles, signals=frozenset({"cls_attention"})))
    known = frozenset(OF_CLS | OF_PATCHES)
    two = products(lambda: model.encode_visual(tiles, signals=known))
    assert one == plain + 3
    assert two == plain + 6


def test_a_prompt_pruned_without_signals_asks_for_no_text(monkeypatch):
    for name in ("text_embeddings", "question", "embed_words", "clip_text"):
        monkeypatch.setattr(QuestionText, name, property(lambda self: pytest.fail("was asked")))
    model, request = model_of(), small_request([[1, 20, -200, 30]])
    for pruning in (None, make_pruning("otprune", k=9), make_pruning("otprune", k=9, layer=2)):
        with torch.no_grad():
            model(**request, pruning=pruning)


def test_layers_without_a_layer_pruner_do_no_further_products():
    model, request = model_of("eager"), small_request([[1, 20, -200, 30, 31]])
    try:
        plain = products(lambda: model(**request, pruning=None))
        # Keeping all of it ranks nothing.
        everything = make_pruning("first_k", keep_ratio=1.0, layer=2)
        assert products(lambda: model(**request, pruning=everything)) == plain
        kept = products(lambda: model(**request, pruning=make_pruning("vtw", schedule="2:0")))
        assert kept == plain
        # One row of one layer: queries, keys and their product.
        fastv = make_pruning("fastv", schedule="2:0.5")
        assert products(lambda: model(**request, pruning=fastv)) == plain + 3
    finally:
        model_of("sdpa")


@pytest.mark.parametrize("name", sorted(PRUNERS))
def test_every_method_s_needs_are_signals_that_there_are(name):
    method = make_pruner(name)
    fields = set(type(small_request([[1, -200]])["visual"][0].signals).__dataclass_fields__)
    assert method.needs <= fields
    if isinstance(method, LayerPruner) and method.first is not None:
        assert method.first.needs <= fields
