"""LoRA files as kohya's sd-scripts writes them: metadata by which A1111 and others know the base, and
hashes.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from genzoo.core.errors import WeightsError
from genzoo.core.reading import read_record
from genzoo.core.tensor_layout import tensor_bytes
from genzoo.pretrained.hub import is_hub_id, located, resolve

# the piece of a file whose hash A1111's first versions showed
LEGACY_START, LEGACY_END = 0x100000, 0x110000
ARCHITECTURES = {
    "sd_v1": "stable-diffusion-v1",
    "sd_v1_v": "stable-diffusion-v1",
    "sd_v2": "stable-diffusion-v2-512",
    "sd_v2_v": "stable-diffusion-v2-768-v",
    "sdxl_base_v1-0": "stable-diffusion-xl-v1-base",
}
_DEEP_BLOCK = re.compile(r"transformer_blocks_(\d+)_")


@dataclass(frozen=True)
class BaseKind:
    """version: kohya's name of the base's kind, a key of ARCHITECTURES.   name: of the base itself."""

    version: str
    name: str = ""

    @property
    def is_v2(self) -> bool:
        """Whether it is Stable Diffusion 2."""
        return self.version.startswith("sd_v2")


def base_kind(width: int, base: str | Path | None = None, *, sdxl: bool = False) -> BaseKind:
    """By the width of its text features, 768, 1024 or 2048, and what its scheduler predicts.

    sdxl: whether a base of another width has SDXL's two text encoders.
    """
    version = {768: "sd_v1", 1024: "sd_v2", 2048: "sdxl_base_v1-0"}.get(width)
    version = version or ("sdxl_base_v1-0" if sdxl else "sd_v1")
    if not version.startswith("sdxl") and base is not None and _predicts_v(base):
        version += "_v"
    return BaseKind(version, Path(str(base)).name if base is not None else "")


def kohya_bytes(
    tensors: Mapping[str, Tensor], *, kind: BaseKind, name: str, trigger: str | None = None
) -> bytes:
    """A whole file. tensors: lora_down and lora_up by kohya's names, without alpha: every program then takes
    the scale 1, and diffusers, which mixes up different alphas, as well.   name: the file's stem.
    """
    ranks = {value.shape[0] for key, value in tensors.items() if key.endswith(".lora_down.weight")}
    if any(key.endswith(".alpha") for key in tensors):
        raise WeightsError("kohya files of ours have no alpha", fix="put the scale into lora_up")
    rank = str(ranks.pop()) if len(ranks) == 1 else "Dynamic"
    metadata = {
        "ss_v2": str(kind.is_v2),
        "ss_base_model_version": kind.version,
        "ss_network_module": "networks.lora",
        "ss_network_dim": rank,
        "ss_network_alpha": rank,
        "ss_network_args": "{}",
        "ss_output_name": name,
        "ss_sd_model_name": kind.name,
    }
    return with_hashes(tensors, metadata | _modelspec(kind, name, trigger))


def with_hashes(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """The file with sshs_model_hash and sshs_legacy_hash, by which web interfaces recognise it."""
    plain = {key: value.contiguous() for key, value in tensors.items()}
    model_hash, legacy_hash = hashes(plain, metadata)
    return tensor_bytes(plain, {**metadata, "sshs_model_hash": model_hash, "sshs_legacy_hash": legacy_hash})


def hashes(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> tuple[str, str]:
    """sha256 of what follows the header, and 8 digits of that of a piece of the file, both of a file whose
    metadata are the ss_ entries alone.
    """
    content = tensor_bytes(tensors, {k: v for k, v in metadata.items() if k.startswith("ss_")})
    start = 8 + int.from_bytes(content[:8], "little")
    legacy = hashlib.sha256(content[LEGACY_START:LEGACY_END]).hexdigest()[:8]
    return hashlib.sha256(content[start:]).hexdigest(), legacy


def a1111_base(metadata: Mapping[str, str]) -> str:
    """Under which base A1111 lists a file: SD1, SD2, SDXL or Unknown."""
    if metadata.get("ss_base_model_version", "").startswith("sdxl_"):
        return "SDXL"
    if metadata.get("ss_v2") == "True":
        return "SD2"
    return "SD1" if metadata else "Unknown"


def invoke_base(shapes: Mapping[str, tuple[int, ...]]) -> str | None:
    """Which base InvokeAI takes a kohya file for: sd-1, sd-2, sdxl; None where it refuses the file."""
    width = _token_width(shapes)
    if width is None:
        deep = [int(found[1]) for key in shapes for found in _DEEP_BLOCK.finditer(key)]
        return "sdxl" if deep and max(deep) >= 2 else None
    return {768: "sd-1", 1024: "sd-2", 1280: "sdxl", 2048: "sdxl"}.get(width)


def _token_width(shapes: Mapping[str, tuple[int, ...]]) -> int | None:
    down = {key: shape[1] for key, shape in shapes.items() if key.endswith("lora_down.weight")}
    for key, width in down.items():
        if key.startswith("lora_unet_") and ("attn2_to_k" in key or "attn2_to_v" in key):
            return width
    found: dict[str, int] = {}
    for key, width in down.items():
        prefix = key.partition("_text_model")[0]
        if prefix in ("lora_te", "lora_te1", "lora_te2") and "self_attn" in key:
            found.setdefault(prefix, width)
    return sum(found.values()) if found else None


def _modelspec(kind: BaseKind, name: str, trigger: str | None) -> dict[str, str]:
    """Without a date, which ModelSpec recommends and nobody needs: the same file is written on any day."""
    sdxl = kind.version.startswith("sdxl")
    found = {
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": f"{ARCHITECTURES[kind.version]}/lora",
        "modelspec.implementation": "https://github.com/Stability-AI/generative-models"
        if sdxl
        else "diffusers",
        "modelspec.title": name,
        "modelspec.resolution": "1024x1024"
        if sdxl
        else "768x768"
        if kind.version == "sd_v2_v"
        else "512x512",
        "modelspec.prediction_type": "v" if kind.version.endswith("_v") else "epsilon",
    }
    return found | ({"modelspec.trigger_phrase": trigger} if trigger else {})


def _predicts_v(base: str | Path) -> bool:
    place = located(base)
    if not Path(place).is_dir() and not is_hub_id(place):
        return False
    try:
        path = resolve(place, "scheduler_config.json", subfolder="scheduler")
    except WeightsError:
        return False
    return read_record(path).get("prediction_type") == "v_prediction"
