"""The model: language model, vision tower, projector, and the seam between them."""
