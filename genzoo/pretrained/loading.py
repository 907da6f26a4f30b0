"""The one module that reads weight files from elsewhere. Nothing in a file runs; every failure is a
CheckpointError.

safetensors is recognised by content, whatever the file is called; everything else is read by torch's
restricted unpickler, which builds tensors and plain containers only. Both are bounded by the file's own size.
"""

from __future__ import annotations

import argparse
import pickle
import struct
import zipfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from genzoo.core.errors import CheckpointError, WeightsError
from genzoo.core.tensor_files import AGAIN, of_disk
from genzoo.pretrained.state_dicts import find_part, unwrapped

Tree = dict[str, Any]
Spec = Mapping[str, tuple[tuple[int, ...], torch.dtype]]

# Training scripts pickle their command line beside the weights; a Namespace is a plain record.
ALLOWED_CLASSES: tuple[type, ...] = (argparse.Namespace,)
MAX_NODES = 1_000_000
MAX_DEPTH = 50
# what a pickle may hold beyond the bytes of its file: rounding and alignment of storages
SLACK_BYTES = 1 << 20

Result = TypeVar("Result")
Module = TypeVar("Module", bound=torch.nn.Module)


def load_foreign(path: str | Path) -> Tree:
    """Read a weights file as a tree of dicts with string keys; leaves are tensors (on the CPU), numbers and
    strings.

    A safetensors file gives a flat dict of tensors, a torch file what its author saved; a Namespace becomes
    a dict. Raises WeightsError if the file is missing, CheckpointError if it is damaged, hostile, or holds
    anything else.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"there is no weights file {path.name!r}", where=str(path), fix="check the path")
    if _guarded(path, lambda: _is_safetensors(path)):
        return dict(_guarded(path, lambda: _read_safetensors(path)))
    _check_archive(path)
    tree = _guarded(path, lambda: _read_pickle(path))
    if not isinstance(tree, Mapping):
        raise CheckpointError(
            f"{path.name} holds a {type(tree).__name__}, not a dict of weights", where=str(path)
        )
    plain = _guarded(path, lambda: _plain(tree, _Budget(path.stat().st_size + SLACK_BYTES), 0))
    return dict(plain)


def load_state(
    path: str | Path,
    expected: Collection[str] = (),
    *,
    prefer: Sequence[str] = ("ema", "model", "state_dict"),
) -> dict[str, Tensor]:
    """The flat dict of weights in a file, wherever it lies and whatever wrappers left in its names.

    expected: names that most of the weights have. Where nothing has them: the file itself, or the first of
    `prefer` that it holds.
    """
    tree = load_foreign(path)
    part = find_part(tree, expected, share=0.5) if expected else None
    if part is not None:
        return part.weights
    found = next((tree[name] for name in prefer if isinstance(tree.get(name), dict)), tree)
    others = [key for key, value in found.items() if not isinstance(value, Tensor)]
    if others or not found:
        seen = f"it holds {', '.join(map(repr, others[:5]))}" if others else "it is empty"
        raise CheckpointError(f"{Path(path).name} is not a dict of tensors", where=str(path), why=seen)
    return unwrapped(found)


def spec_of(module: torch.nn.Module) -> Spec:
    """Shape and dtype of everything in a module's state dict: what `check_against` expects."""
    return {name: (tuple(value.shape), value.dtype) for name, value in module.state_dict().items()}


def check_against(
    expected: Spec,
    state: Mapping[str, Tensor],
    *,
    source: str = "the weights",
    ignore: Sequence[str] = (),
    optional: Sequence[str] = (),
) -> dict[str, Tensor]:
    """The weights in the expected dtypes, after comparing keys, shapes, kinds of number, and finiteness.

    ignore: shell patterns of keys the file may have in addition; they are left out.   optional: patterns of
    expected keys it may lack. Nothing else is dropped or filled in: every difference is listed in one
    CheckpointError. Floating types convert into each other, integers and booleans do not.
    """
    problems = _Problems()
    for key in expected.keys() - state.keys():
        if not _matches(key, optional):
            problems.add("missing", key)
    for key in state.keys() - expected.keys():
        if not _matches(key, ignore):
            problems.add("unexpected", key)
    checked = {}
    for key in (key for key in expected if key in state):
        shape, dtype = expected[key]
        _check_tensor(key, state[key], shape, dtype, problems)
        checked[key] = state[key].to(dtype) if state[key].is_floating_point() else state[key]
    problems.raise_for(source)
    return checked


def load_module(
    module: Module, path: Path, *, ignore: Sequence[str] = (), state: Mapping[str, Tensor] | None = None
) -> Module:
    """Fill a module from a file that fits it, for use without gradients.

    ignore: as for `check_against`.   state: what the file holds, if it was read already.
    """
    found = load_state(path, module.state_dict()) if state is None else state
    module.load_state_dict(check_against(spec_of(module), found, source=path.name, ignore=ignore))
    return module.requires_grad_(False).eval()


def _check_tensor(
    key: str, value: Tensor, shape: tuple[int, ...], dtype: torch.dtype, problems: _Problems
) -> None:
    if tuple(value.shape) != shape:
        problems.add("of another shape", f"{key} {tuple(value.shape)} instead of {shape}")
    elif value.dtype != dtype and not (value.is_floating_point() and dtype.is_floating_point):
        problems.add("of another type", f"{key} {value.dtype} instead of {dtype}")
    elif value.is_floating_point() and not torch.isfinite(value.float()).all():
        problems.add("not finite", key)


class _Problems:
    """Collects what is wrong, so that one error says it all."""

    def __init__(self) -> None:
        self.found: dict[str, list[str]] = {}

    def add(self, kind: str, what: str) -> None:
        self.found.setdefault(kind, []).append(what)

    def raise_for(self, source: str) -> None:
        if not self.found:
            return
        lists = [f"{len(items)} {kind} ({_shorten(sorted(items))})" for kind, items in self.found.items()]
        raise CheckpointError(
            f"{source} do not fit the model",
            why="; ".join(lists),
            fix="build the model with the arguments these weights were trained with, or use other weights",
        )


def _shorten(items: list[str], limit: int = 4) -> str:
    return ", ".join(items[:limit]) + (f", and {len(items) - limit} more" if len(items) > limit else "")


def _matches(key: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch(key, pattern) for pattern in patterns)


def _is_safetensors(path: Path) -> bool:
    """Eight bytes of header length, then JSON: no zip archive or pickle begins like this."""
    with path.open("rb") as file:
        head = file.read(9)
    plausible = len(head) == 9 and struct.unpack("<Q", head[:8])[0] <= path.stat().st_size
    return path.suffix == ".safetensors" or (plausible and head[8:9] == b"{")


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file  # what it raises is told by _guarded

    return load_file(path)


def _check_archive(path: Path) -> None:
    """Refuse archives that grow when read: torch stores tensors uncompressed."""
    # where torch looks, too: an archive that only one of two readers recognises is no weights file
    if not _guarded(path, lambda: _begins_with(path, b"PK\x03\x04")):
        return
    entries = _guarded(path, lambda: zipfile.ZipFile(path).infolist())
    total = sum(entry.file_size for entry in entries)
    if total > path.stat().st_size:
        raise CheckpointError(
            f"{path.name} is a compressed archive, which torch.save never writes",
            where=str(path),
            why=f"{len(entries)} entries of {total} bytes in a file of {path.stat().st_size}",
        )


def _begins_with(path: Path, magic: bytes) -> bool:
    with path.open("rb") as file:
        return file.read(len(magic)) == magic


def _read_pickle(path: Path) -> Any:
    with torch.serialization.safe_globals(list(ALLOWED_CLASSES)):
        return torch.load(path, map_location="cpu", weights_only=True)


def _guarded(path: Path, read: Callable[[], Result]) -> Result:
    """Damaged files make readers raise almost anything; callers see one type of error."""
    try:
        return read()
    except WeightsError:
        raise
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path.name} wants to run code or build objects that are not weights",
            where=str(path),
            why=", ".join(blockers(path)) or _first_line(error),
            fix="convert it to safetensors where you trust it, or get the weights from another source",
        ) from error
    except Exception as error:
        why = of_disk(path, error)
        if why is not None:
            raise WeightsError(
                f"{path.name} cannot be read just now", where=str(path), why=why, fix=AGAIN
            ) from error
        raise CheckpointError(
            f"{path.name} is damaged or not a weights file",
            where=str(path),
            why=f"{type(error).__name__}: {_first_line(error)}",
            fix="fetch the file again",
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or ["no message"])[0][:200]


def blockers(path: str | Path) -> list[str]:
    """Names of the classes and functions that keep a torch file from being loaded; nothing is run."""
    try:
        with torch.serialization.safe_globals(list(ALLOWED_CLASSES)):
            return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(str(path)))
    except Exception:
        # only a help for the message: older formats cannot be searched, and the file may be damaged as well
        return []


class _Budget:
    """Bounds on what a pickle may expand to: references and strides can repeat a few bytes endlessly."""

    def __init__(self, num_bytes: int) -> None:
        self.nodes, self.bytes = MAX_NODES, num_bytes
        self.storages: set[int] = set()

    def spend(self, value: Any, depth: int) -> None:
        self.nodes -= 1
        if self.nodes < 0 or depth > MAX_DEPTH:
            raise CheckpointError(
                f"the file nests deeper than {MAX_DEPTH} or holds more than {MAX_NODES} values"
            )
        if isinstance(value, Tensor):
            self._spend_tensor(value)

    def _spend_tensor(self, value: Tensor) -> None:
        if value.layout != torch.strided or value.device.type != "cpu":
            raise CheckpointError(
                f"the file holds a {value.layout} tensor on {value.device}; dense ones are expected"
            )
        storage = value.untyped_storage()
        if value.numel() * value.element_size() > storage.nbytes():
            raise CheckpointError(
                f"a tensor of shape {tuple(value.shape)} repeats only {storage.nbytes()} bytes"
            )
        if storage.data_ptr() not in self.storages:
            self.storages.add(storage.data_ptr())
            self.bytes -= storage.nbytes()
        if self.bytes < 0:
            raise CheckpointError("the tensors need more memory than the file has bytes")


def _plain(value: Any, budget: _Budget, depth: int) -> Any:
    """Dicts with string keys, lists, tensors, numbers, strings and None; anything else is an error."""
    budget.spend(value, depth)
    if isinstance(value, argparse.Namespace):
        value = vars(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item, budget, depth + 1) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, torch.Size)):
        return [_plain(item, budget, depth + 1) for item in value]
    if isinstance(value, Tensor):
        return value.detach()
    if value is None or isinstance(value, (bool, int, float, str, bytes, torch.dtype)):
        return value
    raise CheckpointError(f"the file holds a {type(value).__name__}, which is no part of weights")


def flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Leaves of a tree with their dotted keys."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
