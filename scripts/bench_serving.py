"""Requests per second and time to the first token of a served model, pruned and not, under load.

    python scripts/bench_serving.py --python ENV/bin/python

Served by vLLM with the plug-in are a LLaVA-1.5 of random weights (CLIP at 336 pixels: 576 tokens an
image) and the embedded qwen-mini (256 tokens); ENV is the environment that ``VLLM_ENV=ENV bash
scripts/test_serving.sh`` makes and keeps. One server answers all ratios, in turns, so that the
columns can be compared; every request has an image of its own, so that no cache answers it. Writes
results/serving/cpu.md and .json.
"""

import argparse
import base64
import http.client
import io
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from otprune_lmms import provenance
from otprune_lmms.embedded import checkpoint_folder
from PIL import Image
from safetensors.torch import load_file

from bench_common import ROOT, image_like_tokens, median_ms, write_tables
from otprune import make_pruner, resolve_budget
from otprune.serving import KEEP_RATIO, ServedPruning

sys.path.insert(0, str(ROOT / "tests" / "serving"))

from checkpoints import publish, write  # noqa: E402

PIXELS, PATCH = 336, 14
TEXT = {
    "hidden_size": 1024,
    "intermediate_size": 2816,
    "num_hidden_layers": 15,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
    "head_dim": 64,
}
TOWER = {
    "hidden_size": 256,
    "intermediate_size": 1024,
    "num_hidden_layers": 8,
    "num_attention_heads": 4,
    "image_size": PIXELS,
    "patch_size": PATCH,
}
ANSWER = 16
"""Tokens of an answer."""


class Served(NamedTuple):
    """A model under load.

    Attributes:
        name: in the tables.
        architecture: of its ``config.json``.
        pixels: sides of an image.
        tokens: of an image.
        channels: of a token.
    """

    name: str
    architecture: str
    pixels: int
    tokens: int
    channels: int


MODELS = {
    "random": Served(
        "LLaVA-1.5 with random weights",
        "LlavaForConditionalGeneration",
        PIXELS,
        (PIXELS // PATCH) ** 2,
        TEXT["hidden_size"],
    ),
    "qwen-mini": Served("qwen-mini", "Qwen3VLForConditionalGeneration", 224, 256, 128),
}


class Asked(NamedTuple):
    """One request: seconds until its first token, and until its last."""

    first: float
    last: float


def write_model(folder: Path) -> float:
    """Write the checkpoint; return its parameters in millions."""
    from transformers import LlavaConfig, LlavaForConditionalGeneration

    write(folder, "llava")
    config = LlavaConfig.from_pretrained(folder)
    config.text_config.update(TEXT)
    config.vision_config.update(TOWER)
    torch.manual_seed(0)
    model: Any = LlavaForConditionalGeneration(config)
    model.save_pretrained(folder)
    publish(folder)
    file = folder / "preprocessor_config.json"
    settings = json.loads(file.read_text())
    square = {"height": PIXELS, "width": PIXELS}
    settings |= {"size": {"shortest_edge": PIXELS}, "crop_size": square}
    file.write_text(json.dumps(settings))
    return model.num_parameters() / 1e6


def image(number: int, side: int) -> str:
    """Return an image that no other request has, as it is sent."""
    pixels = np.random.default_rng(number).integers(0, 255, (24, 24, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).resize((side, side)).save(file, "JPEG")
    return base64.b64encode(file.getvalue()).decode()


def ask(server: "Server", number: int, ratio: float) -> Asked:
    """Ask about an image, and read the answer as it comes."""
    url = {"url": f"data:image/jpeg;base64,{image(number, server.served.pixels)}"}
    content = [{"type": "image_url", "image_url": url}, {"type": "text", "text": "what is it"}]
    body = {
        "model": server.folder, "messages": [{"role": "user", "content": content}], "stream": True,
        "temperature": 0, "max_tokens": ANSWER, "ignore_eos": True,
        "mm_processor_kwargs": {KEEP_RATIO: ratio},
    }  # fmt: skip
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=600)
    begin = time.perf_counter()
    connection.request(
        "POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"}
    )
    response = connection.getresponse()
    if response.status != 200:
        raise RuntimeError(f"the server answers {response.status}: {response.read().decode()}")
    first = None
    for line in response:
        if line.startswith(b"data: {") and first is None:
            choices = json.loads(line[6:])["choices"]
            # The first piece says who speaks, and has no token.
            if choices and choices[0]["delta"].get("content"):
                first = time.perf_counter() - begin
    last = time.perf_counter() - begin
    connection.close()
    return Asked(last if first is None else first, last)


def load(server: "Server", numbers: range, clients: int, ratio: float) -> dict[str, float]:
    """Return requests per second and the median time to the first token of some clients."""
    begin = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        asked = list(pool.map(lambda number: ask(server, number, ratio), numbers))
    seconds = time.perf_counter() - begin
    return {
        "per second": len(asked) / seconds,
        "first ms": 1e3 * statistics.median(one.first for one in asked),
        "last ms": 1e3 * statistics.median(one.last for one in asked),
    }


class Server(NamedTuple):
    """A server that answers.

    Attributes:
        served: the model.
        folder: of its checkpoint, which is its name for clients.
        port: on this machine.
        process: of the server.
    """

    served: Served
    folder: str
    port: int
    process: subprocess.Popen


def serve(python: str, served: Served, folder: str, log: Any) -> Server:
    """Start a server, and wait until it answers.

    Raises:
        RuntimeError: it ends, or does not answer in ten minutes.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    told = json.dumps(ServedPruning("otprune", 0.2).overrides(served.architecture))
    command = [
        python, "-m", "vllm.entrypoints.openai.api_server", "--model", folder,
        "--host", "127.0.0.1", "--port", str(port),
        "--dtype", "float32", "--max-model-len", "1024", "--max-num-seqs", "16",
        "--hf-overrides", told, "--trust-request-mm-kwargs", "--enforce-eager",
    ]  # fmt: skip
    environment = {
        **os.environ, "HF_HUB_OFFLINE": "1", "VLLM_CPU_KVCACHE_SPACE": "2",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_NO_USAGE_STATS": "1",
    }  # fmt: skip
    process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
    for _ in range(600):
        if process.poll() is not None:
            break
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                return Server(served, folder, port, process)
        except (urllib.error.URLError, OSError):
            time.sleep(1)
    process.terminate()
    raise RuntimeError(f"the server does not answer; see {log.name}")


def measure(
    server: Server, ratios: list[float], clients: list[int], turns: int
) -> list[dict[str, Any]]:
    """Return a row for each number of clients and each ratio."""
    load(server, range(2), 1, 1.0)
    number, rows = 100, []
    for count in clients:
        found: dict[float, list[dict[str, float]]] = {ratio: [] for ratio in ratios}
        for _ in range(turns):
            for ratio in ratios:
                requests = range(number, number + max(6, 2 * count))
                number = requests.stop
                found[ratio].append(load(server, requests, count, ratio))
        medians = {
            ratio: {key: statistics.median(one[key] for one in many) for key in many[0]}
            for ratio, many in found.items()
        }
        whole = medians[1.0]
        for ratio in ratios:
            mine = medians[ratio]
            gain = mine["per second"] / whole["per second"]
            rows.append(
                {
                    "clients": count,
                    "keep_ratio": ratio,
                    "requests/s": mine["per second"],
                    "x of 1.0": gain,
                    "first token ms": mine["first ms"],
                    "share of 1.0's": mine["first ms"] / whole["first ms"],
                    "answer ms": mine["last ms"],
                    "verdict": "–" if ratio == 1 else "faster" if gain > 1.02
                    else "slower" if gain < 0.98 else "equal",
                }
            )  # fmt: skip
            print(rows[-1], flush=True)
    return rows


def selection(
    served: Served, rows: list[dict[str, Any]], ratios: list[float]
) -> list[dict[str, Any]]:
    """Return what a selection alone takes, beside a request of one client."""
    tokens, method = image_like_tokens(served.tokens, served.channels), make_pruner("otprune")
    found = []
    for ratio in (one for one in ratios if one < 1):
        k = resolve_budget(served.tokens, keep_ratio=ratio)
        (alone,) = median_ms([lambda k=k: method.select(tokens, k)], 7, "cpu")
        (together,) = median_ms(
            [lambda k=k: method.select_batch([tokens + i for i in range(4)], k)], 5, "cpu"
        )
        fewest = min(row["clients"] for row in rows)
        request = next(
            row["answer ms"]
            for row in rows
            if row["clients"] == fewest and row["keep_ratio"] == ratio
        )
        found.append(
            {
                "keep_ratio": ratio, "tokens": k, "one image ms": alone,
                "of four together, each ms": together / 4,
                "share of a request %": 100 * alone / request,
            }
        )  # fmt: skip
    return found


def under_load(served: Served, given: argparse.Namespace) -> tuple[list[dict[str, Any]], str]:
    """Return the rows of a model, and what it is."""
    with tempfile.TemporaryDirectory() as work:
        folder = checkpoint_folder(served.name)
        if folder is None:
            folder = Path(work) / "model"
            size = write_model(folder)
        else:
            weights = load_file(folder / "model.safetensors")
            size = sum(weight.numel() for weight in weights.values()) / 1e6
        with (Path(work) / "server.log").open("w") as log:
            server = serve(given.python, served, str(folder), log)
            try:
                rows = measure(server, given.ratios, given.clients, given.turns)
            finally:
                server.process.terminate()
                server.process.wait(60)
    return rows, f"{served.name}: {size:.0f} million parameters, {served.tokens} tokens an image"


def main() -> None:
    """Serve, measure, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", required=True, help="interpreter of an environment with vLLM")
    parser.add_argument("--models", nargs="+", choices=sorted(MODELS), default=list(MODELS))
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--ratios", type=float, nargs="+", default=[1.0, 0.5, 0.2, 0.1])
    parser.add_argument("--beside", default="nothing else ran", help="what else the machine did")
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "serving" / "cpu")
    given = parser.parse_args()
    tables, sizes = {}, []
    for served in (MODELS[name] for name in given.models):
        rows, size = under_load(served, given)
        sizes.append(size)
        tables[f"{served.name}: under load"] = rows
        tables[f"{served.name}: selection alone"] = selection(served, rows, given.ratios)
    vllm = subprocess.run(
        [given.python, "-c", "import importlib.metadata as m; print(m.version('vllm-cpu'))"],
        capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    origin = provenance.origin(f"python scripts/bench_serving.py --turns {given.turns}", "cpu")
    notes = [
        f"{'; '.join(sizes)}. float32, answers of {ANSWER} tokens, an image of its own in every "
        "request. "
        f"Turns, in which the ratios follow each other in one server: {given.turns}; medians of "
        "them. Every ratio encodes the whole image; what pruning saves is the language model's "
        "work. The verdict is about requests per second.",
        f"vllm-cpu {vllm}. Meanwhile on the machine: {given.beside}.",
    ]
    if given.turns == 1:
        notes.append(
            "With one turn each row is one measurement, and other work on the machine is in it: "
            "rows out of order with their neighbours are noise."
        )
    print(write_tables(given.out, "A served model", origin, tables, notes))


if __name__ == "__main__":
    main()
