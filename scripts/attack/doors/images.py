"""Image files that are damaged, of another kind, or no files: given to `prune` and to chat."""

import io
import struct
import zlib
from pathlib import Path
from random import Random

from PIL import Image

from attack.commands import chat, otprune
from attack.doors.case import PLACES, Case, damaged, write_raw
from attack.warm import MINI

FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM")


def _image(kind: str, draw: Random) -> bytes:
    with io.BytesIO() as file:
        image = Image.effect_noise((40 + draw.randrange(40), 40), 90).convert("RGB")
        image.save(file, kind)
        return file.getvalue()


def _png(width: int, height: int) -> bytes:
    """Return the beginning of a PNG of any size, without its pixels."""
    size = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    head = struct.pack(">I", 13) + size + struct.pack(">I", zlib.crc32(size))
    return b"\x89PNG\r\n\x1a\n" + head + b"\0\0\0\0IEND\xaeB`\x82"


OTHERS: dict[str, bytes] = {
    "nothing": b"",
    "text": b"no image\n" * 20,
    "PostScript that loops": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n{ } loop\n%%EOF\n",
    "SVG": b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>",
    "PDF": b"%PDF-1.4\n1 0 obj<<>>endobj\ntrailer<<>>\n%%EOF",
    "an archive": b"PK\x03\x04" + bytes(60),
    "PNG of 100 000 x 100 000": _png(100_000, 100_000),
    "PNG without pixels": _png(0, 9),
    "PPM of 0 x 4": b"P6\n0 4\n255\n",
    "PPM that ends": b"P6\n400 400\n255\nxx",
    "a Git LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
}
"""Files that are no whole images."""


def case(draw: Random, folder: Path) -> Case:
    """Return a command that is given one image with a fault."""
    may_work = False
    kind = draw.randrange(4)
    name = draw.choice(["image.png", "bild é.jpg", "-x.png", "[b].png", "a b.png"])
    path = folder / name
    if kind == 0:
        what = draw.choice(list(OTHERS))
        write_raw(path, OTHERS[what])
    elif kind == 1:
        what = draw.choice(list(PLACES))
        PLACES[what](path)
    else:
        form = draw.choice(FORMATS)
        damage, content = damaged(_image(form, draw), draw)
        write_raw(path, content)
        what = f"{form} {damage}"
        # Formats without a checksum may hold another image then, and a PNG's end may be cut.
        may_work = True
    if draw.random() < 0.7:
        work = otprune(folder, "prune", "--model", MINI, "--", name)
    else:
        options = ("--image", f"./{name}", "--max-new-tokens", "2", "--device", "cpu")
        work = chat(folder, MINI, "What?", *options)
    return Case(f"{name}: {what}", work, (name, "image"), may_work)
