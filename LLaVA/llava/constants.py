"""Constants of LLaVA's prompts and labels."""

IGNORE_INDEX = -100
"""Label of positions without a loss."""

IMAGE_TOKEN_INDEX = -200
"""Token id of the placeholder of an image."""

DEFAULT_IMAGE_TOKEN = "<image>"
DEFAULT_IMAGE_PATCH_TOKEN = "<im_patch>"
DEFAULT_IM_START_TOKEN = "<im_start>"
DEFAULT_IM_END_TOKEN = "<im_end>"
