"""What is computed once before training: latents and controls."""
