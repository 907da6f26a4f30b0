"""Adapters to diffusers, transformers and open_clip, readers of foreign weights, and the card of codecs."""
