"""Scripts that start a training under torchrun or a scheduler; they are written, never submitted."""
