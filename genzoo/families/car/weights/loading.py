"""Weights for frozen parts, from a released file, a file of ours, or a run folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from genzoo.core.checkpoint import latest_valid, load_checkpoint
from genzoo.core.checkpoint_memory import CheckpointMemory
from genzoo.core.errors import CheckpointError, WeightsError
from genzoo.families.car.var.model import VAR
from genzoo.families.car.vqvae.model import VQVAE
from genzoo.families.car.weights.released_layouts import (
    check,
    find_var,
    find_vqvae,
    require,
    vqvae_arguments,
    without_branch,
    without_discriminator,
)
from genzoo.pretrained.hub import is_hub_id, resolve
from genzoo.pretrained.hub_runs import here, is_hub_run
from genzoo.pretrained.loading import load_foreign
from genzoo.pretrained.shipped import is_shipped, shipped

SHIPPED_FILE = "model.safetensors"
PUBLISHER = "FoundationVision/var"
PUBLISHED = ("vae_ch160v4096z32.pth", *(f"var_d{depth}.pth" for depth in (16, 20, 24, 30, 36)))
SMALL = "the small ones that ship: assets:vqvae_emoji and assets:var_emoji"


def read_tree(path: str) -> dict[str, Any]:
    """What a weights file holds.

    path: a file; a run folder, whose newest averaged weights are taken; "hf://user/repo" of a run that was
    pushed, or a copy of its folder; a file on the hub, "owner/name:file"; or "assets:NAME" for weights that
    ship with genzoo. Raises WeightsError, CheckpointError.
    """
    if is_shipped(path):
        return load_foreign(shipped(f"{path}/{SHIPPED_FILE}"))
    repository, _, file = path.rpartition(":")
    local = here(path) if is_hub_run(path) else Path(path).expanduser()
    if (local / SHIPPED_FILE).is_file() and not (local / "checkpoints").is_dir():
        return load_foreign(local / SHIPPED_FILE)
    if local.is_dir():
        return dict(_run_weights(local))
    if not local.exists() and repository and is_hub_id(repository):
        way = f"as one file: {repository.rpartition('/')[2]}/{file} in place of {path!r}"
        local = resolve(repository, file, instead=f"{way}; or take {SMALL}")
    elif not local.exists() and local.name in PUBLISHED:
        raise WeightsError(
            f"there is no weights file {path}",
            where=f"https://huggingface.co/{PUBLISHER}/blob/main/{local.name}",
            fix=f"{PUBLISHER}:{local.name} in its place fetches it; or take {SMALL}",
        )
    return load_foreign(local)


def load_var_weights(path: str, model: VAR) -> dict[str, Tensor]:
    """A VAR's weights for a model that must be of the same size. Raises CheckpointError otherwise."""
    tree = read_tree(path)
    weights = without_branch(require(find_var(tree), tree, "VAR").weights)
    source = f"the VAR weights of {Path(path).name}"
    _require_scales(model, weights, source)
    return check(model, weights, source=source)


def _require_scales(model: VAR, weights: dict[str, Tensor], source: str) -> None:
    """Raise CheckpointError for weights of other token maps, where the file tells which they are."""
    if "lvl_1L" not in weights:
        return
    theirs, ours = (table.flatten().bincount().tolist() for table in (weights["lvl_1L"], model.lvl_1L))
    if theirs != ours:
        raise CheckpointError(
            f"{source} do not fit: they are of other token maps",
            why=f"the file's have {theirs} tokens, the model's {ours} (patch_nums {list(model.patch_nums)})",
            fix="take the file's patch_nums, or train such a base (init_from begins with the file)",
        )


def load_vqvae(path: str, **arguments: Any) -> VQVAE:
    """A VQVAE with its weights; `arguments` settle what the tensors cannot tell, such as patch_nums."""
    tree = read_tree(path)
    weights = without_discriminator(require(find_vqvae(tree), tree, "VQVAE").weights)
    model = VQVAE(**vqvae_arguments(weights, **arguments))
    # a VQVAE serves other scales than it was trained on, but the counter of hits has a row for each
    hits = "quantize.ema_vocab_hit_SV"
    own = model.state_dict()[hits]
    if hits not in weights or weights[hits].shape != own.shape:
        weights = weights | {hits: own}
    model.load_state_dict(check(model, weights, source=f"the VQVAE weights of {Path(path).name}"))
    return model


def _run_weights(folder: Path) -> dict[str, Tensor]:
    memory = CheckpointMemory()
    checkpoint = latest_valid(folder / "checkpoints", memory.verify)
    if checkpoint is None:
        raise WeightsError(f"{folder} holds no checkpoint", fix="name a weights file or a trained run")
    stored = load_checkpoint(checkpoint, ("model", "ema"), memory.verify)
    if stored.state.get("frozen"):
        raise CheckpointError(
            f"{folder} holds a part of a model only",
            why="the weights it stands on are frozen and lie elsewhere",
            fix="name the file or run of the whole model",
        )
    return stored.averaged()
