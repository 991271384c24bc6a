"""Numbers and words that LLaVA's prompts and labels use."""

IGNORE_INDEX = -100
"""Label of positions that no loss is taken at."""

IMAGE_TOKEN_INDEX = -200
"""Token id that stands where an image goes."""

DEFAULT_IMAGE_TOKEN = "<image>"
DEFAULT_IMAGE_PATCH_TOKEN = "<im_patch>"
DEFAULT_IM_START_TOKEN = "<im_start>"
DEFAULT_IM_END_TOKEN = "<im_end>"
