"""Tile sizes of the Triton scan: a table that needs no device, and on a GPU a measurement of a few."""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable
from dataclasses import dataclass

import torch

# Steps between two saved states. 32 costs 4 n / 32 bytes per element and direction (n = 16: one bf16 tensor).
SEGMENT = 32

_measured: dict[tuple[object, ...], Tiles] = {}


@dataclass(frozen=True)
class Tiles:
    """A program computes `groups * lanes` channels, `rows` steps at a time, with `warps` warps.

    registers: the most that a thread may take, so that more warps share a multiprocessor; None for no limit.
    """

    groups: int
    lanes: int
    rows: int
    warps: int
    registers: int | None = None


def padded_state(d_state: int) -> int:
    """Triton tiles are powers of two; the states added hold zeros."""
    return 1 << (d_state - 1).bit_length()


def forward_tiles(states: int) -> list[Tiles]:
    """Candidates, the default first: 64 (t, d, n) cells per thread, which fit on sm_90 without spills.

    lanes * states is at least a warp: only then does the time axis stay inside one thread. On an H200 the
    default was the fastest of ten at 256 steps, half its lanes at 4,096; the third is for narrower models.
    """
    lanes = max(16, 32 // states)
    warps = min(max(states // 16, 1), 8)
    rows = min(max(2048 * warps // (lanes * states), 4), 16)
    candidates = [Tiles(1, lanes, rows, warps)]
    if states >= 4:
        candidates.append(Tiles(1, lanes // 2, rows, warps))
    return [*candidates, Tiles(1, lanes, rows // 2, warps, 96)]


def backward_tiles(states: int) -> list[Tiles]:
    """Candidates, the default first.

    Eight lanes of channels and four of states share the cost of the two kinds of sums: over states for the
    gradients of u and delta, over channels for those of B and C; groups of channels in one thread are free.
    Of 16 on an H200, (32, 256, 2304, 16), both directions: one group in 128 registers 2.25 ms, two in 168
    2.30 with half the partial sums, unlimited 2.36, four 3.34.
    """
    lanes = max(8, 32 // states)
    warps = min(max(states // 16, 1), 8)
    groups = min(max(128 // states, 1), 2)
    return [
        Tiles(groups, lanes, 4, warps, 168),
        Tiles(1, lanes, 4, warps, 128),
        Tiles(groups, lanes, 4, warps),
    ]


@dataclass(frozen=True)
class Split:
    """How a scan that would leave most of a device idle is cut.

    steps: of a chunk of the length, a multiple of SEGMENT, 0 for the whole.   apart: a program a direction.
    """

    steps: int = 0
    apart: bool = False

    def num_chunks(self, length: int) -> int:
        return -(-length // self.steps) if self.steps else 1


def pick_split(batch: int, length: int, width: int, device: torch.device) -> Split:
    """By the warps that the scan would have, two programs of sixteen channels being one: a rule, no measure.

    Chunks cost a second exponential for each cell, so they pay only while most schedulers have nothing to do:
    below one and a half warps a multiprocessor; up to four and a half, directions apart still gain.
    """
    units = _multiprocessors(device)
    warps = batch * -(-width // 16)
    if not warps or warps > 4.5 * units:
        return Split()
    wanted = 1 << round(math.log2(6 * units / warps)) if warps <= 1.5 * units else 1
    chunks = min(wanted, length // 64)
    if chunks < 2:
        return Split(apart=True)
    return Split(steps=-(-length // (chunks * SEGMENT)) * SEGMENT, apart=True)


@functools.cache
def _multiprocessors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 0


def pick_tiles(key: tuple[object, ...], candidates: list[Tiles], launch: Callable[[Tiles], None]) -> Tiles:
    """The fastest candidate for `key`, measured once per process; the default where that is out of place.

    That is without a GPU, with GENZOO_TRITON_AUTOTUNE=0, and under torch.use_deterministic_algorithms: other
    tiles sum in another order, so runs would differ in last bits. While a CUDA graph is captured nothing can
    be measured, but what was measured before, in the warm-up of the graph, holds.
    """
    if not _may_differ():
        return candidates[0]
    if key not in _measured:
        if _capturing():
            return candidates[0]
        from triton.testing import do_bench

        times = [do_bench(lambda tiles=tiles: launch(tiles), warmup=5, rep=20) for tiles in candidates]
        _measured[key] = candidates[times.index(min(times))]
    return _measured[key]


def _may_differ() -> bool:
    return (
        torch.cuda.is_available()
        and os.environ.get("GENZOO_TRITON_AUTOTUNE", "1") != "0"
        and not torch.are_deterministic_algorithms_enabled()
    )


def _capturing() -> bool:
    return torch.cuda.is_current_stream_capturing()
