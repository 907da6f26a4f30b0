"""Weights files into modules: safetensors or plain tensors only, every key and shape accounted for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import load_file

from genzoo.core.errors import WeightsError

if TYPE_CHECKING:
    from torch import Tensor, nn


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The state dict of a .safetensors file or of a pickle that holds tensors only. Raises WeightsError."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = str(error).partition("\n")[0]
        raise WeightsError(f"{path.name} cannot be read as tensors", where=str(path), why=reason) from error
    for wrapper in ("state_dict", "model"):
        if isinstance(state, Mapping) and isinstance(state.get(wrapper), Mapping):
            state = state[wrapper]
    if not isinstance(state, Mapping) or not all(torch.is_tensor(value) for value in state.values()):
        raise WeightsError(f"{path.name} holds no state dict", where=str(path))
    return dict(state)


def load_into(module: nn.Module, state: Mapping[str, Tensor], path: Path, *, spare: str = "") -> None:
    """Load by name; keys beginning with `spare` may be left over. Raises WeightsError naming misfits."""
    own = module.state_dict()
    missing = [key for key in own if key not in state]
    left_over = [key for key in state if key not in own and not (spare and key.startswith(spare))]
    unlike = [key for key in own if key in state and state[key].shape != own[key].shape]
    if missing or left_over or unlike:
        why = "; ".join(
            f"{len(keys)} {what}, such as {keys[0]}"
            for what, keys in (("missing", missing), ("unknown", left_over), ("of another shape", unlike))
            if keys
        )
        raise WeightsError(f"{path.name} does not fit {type(module).__name__}", where=str(path), why=why)
    module.load_state_dict({key: state[key] for key in own})
