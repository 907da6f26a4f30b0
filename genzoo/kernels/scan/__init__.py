"""Selective state-space scans with interchangeable backends; see `dispatch` for how one is chosen."""

from genzoo.kernels.scan.dispatch import (
    BACKENDS,
    available_backends,
    bidirectional_selective_scan,
    choose_backend,
    selective_scan,
    use_backend,
)

__all__ = [
    "BACKENDS",
    "available_backends",
    "bidirectional_selective_scan",
    "choose_backend",
    "selective_scan",
    "use_backend",
]
