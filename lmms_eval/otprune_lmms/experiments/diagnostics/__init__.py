"""How far the visual tokens that a setting keeps are from all tokens of an image, measured.

`measures` compares a kept set with the full one, `diagnose` does so for every setting of an
experiment, `one_image` for one picture.
"""
