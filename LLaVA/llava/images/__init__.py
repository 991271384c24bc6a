"""From image files to pixel values, equal to LLaVA's original preprocessing in every pixel.

`reading` opens files, `processor` turns an image into one tile of pixel values, `layouts` divides
an image into tiles by the model's ``image_aspect_ratio``.
"""

from llava.images.layouts import process_images
from llava.images.processor import ImageProcessor
from llava.images.reading import ImageError, as_rgb, open_image, picture

__all__ = ["ImageError", "ImageProcessor", "as_rgb", "open_image", "picture", "process_images"]
