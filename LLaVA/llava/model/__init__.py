"""The model: language model, vision tower, projector, and the pruning between them."""
