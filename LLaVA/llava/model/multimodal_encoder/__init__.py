"""Vision towers: CLIP, SigLIP and DINOv2 behind one builder."""
