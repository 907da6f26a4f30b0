"""DiM: Scaling Diffusion Mamba with Bidirectional SSMs (Mo & Tian, arXiv 2405.15881), and its DiT baseline."""
