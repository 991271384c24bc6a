"""From image files to pixel values, pixel for pixel as LLaVA's original preprocessing.

`reading` opens files, `processor` turns one picture into one tile of pixel values, `layouts`
decides which tiles an image becomes under its ``image_aspect_ratio``.
"""

from llava.images.layouts import process_images
from llava.images.processor import ImageProcessor
from llava.images.reading import ImageError, as_rgb, open_image

__all__ = ["ImageError", "ImageProcessor", "as_rgb", "open_image", "process_images"]
