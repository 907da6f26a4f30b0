"""Numerical kernels: the selective scan and the causal depthwise convolution, each with several backends."""

from genzoo.kernels.scan import (
    available_backends,
    bidirectional_selective_scan,
    choose_backend,
    selective_scan,
    use_backend,
)

__all__ = [
    "available_backends",
    "bidirectional_selective_scan",
    "choose_backend",
    "selective_scan",
    "use_backend",
]
