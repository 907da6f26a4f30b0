"""The four variants (section 3.2, Figure 3) as lists of blocks: what each is, and in which order it scans.

The paper gives a depth L for each size but no number of blocks for a variant. Tables 2 and 3 are met when L
counts the attention blocks, as in Latte: variant 3 is L/2 times (spatial attention, temporal attention,
Mamba). For L = 28, Table 2 then asks for 63 blocks of the pure Mamba variants, and for 23 pairs of variant 4.
Other sizes keep these proportions.
"""

from __future__ import annotations

from collections.abc import Callable

from genzoo.core.errors import ShapeError, UsageError, did_you_mean

Plan = list[tuple[str, str]]
"""(kind, order) of each block; kind: "attention" or "mamba"."""

SCANS = ("spatial_first", "temporal_first")


def block_plan(variant: int, depth: int, scan: str = "spatial_first") -> Plan:
    """The blocks of a variant at the paper's depth L, first to last."""
    if scan not in SCANS:
        hint = did_you_mean(scan, SCANS) or f"choose one of {', '.join(SCANS)}"
        raise UsageError(f"there is no scan {scan!r}; {hint}")
    if variant not in _PLANS:
        raise UsageError(f"Matten has no variant {variant!r}", fix="choose 1, 2, 3 or 4")
    return _PLANS[variant](depth, ("mamba", f"global_{scan}"))


def _global_mamba(depth: int, mamba: tuple[str, str]) -> Plan:
    return [mamba] * _rounded(depth, 63)


def _spatial_and_temporal_mamba(depth: int, mamba: tuple[str, str]) -> Plan:
    return [("mamba", ("spatial", "temporal")[i % 2]) for i in range(_rounded(depth, 63))]


def _spatial_and_temporal_attention(depth: int, mamba: tuple[str, str]) -> Plan:
    if depth % 2:
        raise ShapeError(
            f"depth {depth} is odd, but variant 3 pairs spatial and temporal attention",
            fix="use an even depth",
        )
    return [("attention", "spatial"), ("attention", "temporal"), mamba] * (depth // 2)


def _temporal_attention(depth: int, mamba: tuple[str, str]) -> Plan:
    return [("attention", "temporal"), mamba] * _rounded(depth, 23)


def _rounded(depth: int, of_28: int) -> int:
    """The number that stands to `depth` as `of_28` to 28, at least 1, halves up."""
    return max(1, (2 * depth * of_28 + 28) // 56)


_PLANS: dict[int, Callable[[int, tuple[str, str]], Plan]] = {
    1: _global_mamba,
    2: _spatial_and_temporal_mamba,
    3: _spatial_and_temporal_attention,
    4: _temporal_attention,
}
