"""Runs and concepts on a hub, `hf://user/repo@revision`: what genzoo reads is fetched, and no code."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

from genzoo.core.errors import UsageError, WeightsError

SCHEME = "hf:/"  # of a path, which has one slash of the two
FORM = re.compile(r"([\w.-]+)/([\w.-]+?)(?:@([\w./-]+))?")
PIPELINE = "transformer/config.json"
SINGLE = ("concept.safetensors", "model.safetensors")
EXPECTED = (
    *("recipe.yaml", "model_index.json", *SINGLE),
    *("transformer/config.json", "transformer/*.safetensors", "transformer/codec/*.json"),
    *("unet/*.json", "unet/*.safetensors", "vae/*.json", "vae/*.safetensors", "scheduler/*.json"),
    *("text_encoder/*.json", "text_encoder/*.safetensors", "text_encoder_2/*.json"),
    *("text_encoder_2/*.safetensors", "tokenizer/*.json", "tokenizer/*.txt", "tokenizer_2/*.json"),
    *("tokenizer_2/*.txt", "pytorch_lora_weights.safetensors", "learned_embeds*.safetensors"),
)
"""What a repository of ours holds, or a text-to-image model in diffusers' layout; no pickle, no code."""


def is_hub_run(place: object) -> bool:
    """Whether a text or a path begins with hf://."""
    return isinstance(place, (str, Path)) and str(place).startswith(SCHEME)


def here(place: str | Path) -> Path:
    """A run's place on this machine: what begins with hf:// is fetched. Raises UsageError, WeightsError."""
    return _fetched(*_parts(str(place))) if is_hub_run(place) else Path(place)


def name_of(place: str | Path) -> str:
    """A name for what is made of a run on a hub, such as "user--repo"."""
    user, repository, _ = _parts(str(place))
    return f"{user}--{repository}"


def repository_of(name: str) -> str:
    """ "user/repo" of it, with or without hf://. Raises UsageError for anything else, a revision included."""
    user, repository, revision = _parts(name)
    if revision is not None:
        raise UsageError(f"{name[:200]!r} names a revision", fix=f"write {user}/{repository}")
    return f"{user}/{repository}"


def recipe_of_hub(place: str | Path) -> Path:
    """The recipe that was pushed with a run. Raises WeightsError when there is none."""
    found = here(place)
    folder = found if found.is_dir() else found.parent
    if not (folder / "recipe.yaml").is_file():
        raise WeightsError(f"{place} has no recipe.yaml", fix="name a run that `genzoo push` made")
    return folder / "recipe.yaml"


def _parts(place: str) -> tuple[str, str, str | None]:
    matched = FORM.fullmatch(place.removeprefix(SCHEME).lstrip("/"))
    if matched is None:
        raise UsageError(
            f"{place[:200]!r} names no repository", fix="write hf://user/repo, or hf://user/repo@revision"
        )
    user, repository, revision = matched.groups()
    return user, repository, revision


@cache
def _fetched(user: str, repository: str, revision: str | None) -> Path:
    from genzoo.pretrained.hub import fetch  # with it comes torch, which looking at a name does not need

    folder = fetch(f"{user}/{repository}", EXPECTED, revision=revision)
    if (folder / PIPELINE).is_file():
        return folder
    single: Any = next((folder / name for name in SINGLE if (folder / name).is_file()), None)
    if single is not None:
        return Path(single)
    if (folder / "model_index.json").is_file():
        return folder
    raise WeightsError(
        f"{user}/{repository} holds nothing that genzoo samples",
        why=f"it has none of {', '.join((PIPELINE, *SINGLE, 'model_index.json'))}",
        fix="name a repository that `genzoo push` made, or a text-to-image model in diffusers' layout",
    )
