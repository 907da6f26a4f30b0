"""Gaussian diffusion, and the card that names its losses, samplers and task; importing it imports no torch."""
