"""Mini slices that ask for captions: COCO, Flickr30k, NoCaps."""

from captions import captions
from datasets import Features, List
from formats import CAPTION
from scenes import SIDE, make_scene
from slice_parts import BENCHMARK, IMAGE, TEXT, WHOLE, Row, image_of, texts


def coco(split: str = BENCHMARK) -> tuple[Features, list[Row]]:
    """Captions: 100 scenes, five references each."""
    features = Features(
        **texts("question_id", "question", "file_name", "coco_url", "date_captured"),
        image=IMAGE, answer=List(TEXT), id=WHOLE, license=WHOLE, height=WHOLE, width=WHOLE,
    )  # fmt: skip
    rows = []
    for i in range(100):
        scene = make_scene(split, i)
        name = f"{i + 1:012d}.jpg"
        rows.append({
            "question_id": name, "file_name": name, "image": image_of(scene), "question": CAPTION,
            "answer": captions(scene), "id": i + 1, "license": 0, "coco_url": "",
            "height": SIDE, "width": SIDE, "date_captured": "",
        })  # fmt: skip
    return features, rows


def flickr(split: str = BENCHMARK) -> tuple[Features, list[Row]]:
    """Captions: 100 scenes."""
    features = Features(
        **texts("img_id", "filename"), image=IMAGE, caption=List(TEXT), sentids=List(TEXT)
    )
    rows = []
    for i in range(100):
        scene = make_scene(split, 1000 + i)
        sentences = [str(5 * i + j) for j in range(5)]
        rows.append({
            "img_id": str(i), "filename": f"{i}.jpg", "image": image_of(scene),
            "caption": captions(scene), "sentids": sentences,
        })  # fmt: skip
    return features, rows


def nocaps(split: str = BENCHMARK) -> tuple[Features, list[Row]]:
    """Captions: 34 scenes like those of training, 33 with some unseen pairs, 33 of nothing else."""
    about = ("coco_url", "date_captured", "file_name", "open_images_id")
    features = Features(
        **texts("image_domain", *(f"image_{name}" for name in about)),
        image=IMAGE, image_id=WHOLE, annotations_ids=List(WHOLE), annotations_captions=List(TEXT),
        image_height=WHOLE, image_width=WHOLE, image_license=WHOLE,
    )  # fmt: skip
    domains = {"in-domain": "never", "near-domain": "some", "out-domain": "only"}
    rows = []
    for i in range(100):
        domain = list(domains)[i % 3]
        scene = make_scene(split, 2000 + i, unseen=domains[domain])
        rows.append({
            "image": image_of(scene), "image_id": i, "image_domain": domain,
            "annotations_ids": [5 * i + j for j in range(5)],
            "annotations_captions": captions(scene), "image_height": SIDE, "image_width": SIDE,
            "image_license": 0, "image_file_name": f"{i}.jpg", "image_coco_url": "",
            "image_date_captured": "", "image_open_images_id": f"mini{i}",
        })  # fmt: skip
    return features, rows
