"""Selective state-space scans with interchangeable backends; see `dispatch` for how one is chosen."""

from genzoo.kernels.scan.dispatch import (
    BACKENDS,
    available_backends,
    bidirectional_selective_scan,
    choose_backend,
    scan_both,
    scan_one,
    selective_scan,
    use_backend,
)
from genzoo.kernels.scan.record import Scan

__all__ = [
    "BACKENDS",
    "Scan",
    "available_backends",
    "bidirectional_selective_scan",
    "choose_backend",
    "scan_both",
    "scan_one",
    "selective_scan",
    "use_backend",
]
