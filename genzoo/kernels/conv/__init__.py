"""Backends of the causal depthwise convolution; `genzoo.kernels.causal_conv1d` chooses between them."""
