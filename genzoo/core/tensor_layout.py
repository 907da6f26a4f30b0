"""The bytes of a safetensors file: the length of a JSON text, the text, the tensors by dtype and name.

The layout follows from names, shapes and dtypes alone, and metadata are sorted: the same content gives the
same bytes, which are those of `safetensors.torch.save_file` but for the order of metadata.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping

import torch
from torch import Tensor

# in the order in which the format's library lays tensors out
CODES: Mapping[torch.dtype, str] = {
    torch.uint64: "U64",
    torch.int64: "I64",
    torch.float64: "F64",
    torch.complex64: "C64",
    torch.float32: "F32",
    torch.uint32: "U32",
    torch.int32: "I32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.uint16: "U16",
    torch.int16: "I16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
ALIGNMENT = 8


def tensor_bytes(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """The content of a small safetensors file; the same tensors and metadata give the same bytes."""
    return b"".join([header(tensors, metadata), *(as_bytes(tensors[name]) for name in in_order(tensors))])


def header(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> memoryview:
    """The file's first bytes. Only names, shapes and dtypes are looked at."""
    about: dict[str, object] = {"__metadata__": dict(sorted(metadata.items()))} if metadata else {}
    for name, (start, end) in spans(tensors).items():
        code, shape = CODES[tensors[name].dtype], list(tensors[name].shape)
        about[name] = {"dtype": code, "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(about, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    return memoryview(len(text).to_bytes(8, "little") + text)


def spans(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, int]]:
    """Where each tensor's bytes begin and end behind the header, in the file's order."""
    found, start = {}, 0
    for name in in_order(tensors):
        end = start + math.prod(tensors[name].shape) * tensors[name].dtype.itemsize
        found[name] = (start, end)
        start = end
    return found


def in_order(tensors: Mapping[str, Tensor]) -> list[str]:
    """The names as the file has them."""
    ranks = {dtype: rank for rank, dtype in enumerate(CODES)}
    return sorted(tensors, key=lambda name: (ranks[tensors[name].dtype], name.encode()))


def as_bytes(tensor: Tensor) -> memoryview:
    """The bytes of a tensor on any device, without a copy where it lies on the CPU in one piece."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().data if flat.numel() else memoryview(b"")
