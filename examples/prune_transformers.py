"""Prune a model of transformers: the embedded Qwen3-VL, asked about a drawn scene.

    .venv/bin/python examples/prune_transformers.py

It knows drawn scenes only. With a checkpoint of the hub, AutoProcessor makes the inputs in one
call; here its parts do, since the processor wants torchvision, for videos, which this project
leaves out.
"""

import io

import pyarrow.parquet as pq
from otprune_lmms.embedded import CHECKPOINTS, MINI_TASKS
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageTextToText, AutoTokenizer

import otprune.hf

folder = CHECKPOINTS / "qwen-mini"
model = AutoModelForImageTextToText.from_pretrained(folder)
tokenizer = AutoTokenizer.from_pretrained(folder)
images = AutoImageProcessor.from_pretrained(folder)

(scenes,) = (MINI_TASKS.parent / "mini_data" / "pope").glob("*.parquet")
row = pq.read_table(scenes).slice(0, 1).to_pylist()[0]
image = Image.open(io.BytesIO(row["image"]["bytes"])).convert("RGB")
pixels = images(image, return_tensors="pt")

# One placeholder for each visual token; a processor writes them from the size of the image.
merged = images.merge_size**2
places = "<|image_pad|>" * (int(pixels["image_grid_thw"].prod()) // merged)
content = f"<|vision_start|>{places}<|vision_end|>{row['question']}"
chat = [{"role": "user", "content": content}]
prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
words = tokenizer(prompt, return_tensors="pt")
kinds = (words["input_ids"] == model.config.image_token_id).int()

print(f"{row['question']} (the data says: {row['answer']})")
for keep_ratio in (1.0, 0.25, 0.1):
    with otprune.hf.pruned(model, "otprune", keep_ratio=keep_ratio) as trace:
        out = model.generate(**words, **pixels, mm_token_type_ids=kinds, max_new_tokens=8)
    answer = tokenizer.decode(out[0, words["input_ids"].shape[1] :], skip_special_tokens=True)
    print(f"keep ratio {keep_ratio}: {answer.strip()}; kept {len(trace.kept[0][0])} tokens")
