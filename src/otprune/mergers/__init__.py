"""Mergers: methods that make fewer new tokens out of the visual tokens of an image."""
