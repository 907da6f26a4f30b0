"""The multi-scale VQVAE: pixels as token maps."""
