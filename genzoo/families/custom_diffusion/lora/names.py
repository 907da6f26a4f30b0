"""Names of a base's linear modules, and what each layout of LoRA files calls them.

Underscores of kohya's names also occur inside names, so they are never split: the names that the base's own
modules would have are looked up.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from genzoo.core.errors import WeightsError
from genzoo.core.tensor_files import open_tensors
from genzoo.pretrained.hub import located

Shape = tuple[int, ...]
ENCODERS = ("text_encoder", "text_encoder_2")
# the folders of a base that hold linear modules
PARTS = ("unet", "transformer", *ENCODERS)
_SIDE = re.compile(r"(?:(down|up)_blocks\.(\d+)\.attentions\.(\d+)|mid_block\.attentions\.0)\.(.*)$")
_PROCESSOR = re.compile(r"(?P<block>.*\battn\d)\.processor\.to_(?P<what>[qkv]|out)$")


def base_modules(base: str | Path) -> dict[str, Shape]:
    """Shapes of all weights of two or four dimensions, by their module's name; headers alone are read."""
    folder = Path(located(base)).expanduser()
    found: dict[str, Shape] = {}
    for part in PARTS:
        for path in sorted((folder / part).glob("*.safetensors")):
            with open_tensors(path, "the base's weights") as file:
                for name in file.keys():  # noqa: SIM118
                    shape = tuple(file.get_slice(name).get_shape())
                    if name.endswith(".weight") and len(shape) in (2, 4):
                        found[canonical(part, name.removesuffix(".weight"))] = shape
    if not found:
        raise WeightsError(
            "the base has no weights of a UNet or transformer",
            where=str(folder),
            fix="give a folder in diffusers' layout with safetensors weights",
        )
    return found


def canonical(part: str, name: str) -> str:
    """A module's name in the base, as `LoraFile` has it."""
    return f"{part}.{name.removeprefix('text_model.')}" if part in ENCODERS else name


def kohya_name(module: str, *, two_encoders: bool = False, original: bool = False) -> str:
    """lora_unet_..., lora_te_... or, of SDXL, lora_te1_ and lora_te2_; original: SDXL's first names of
    blocks.
    """
    part, _, rest = module.partition(".")
    if part in ENCODERS:
        number = str(ENCODERS.index(part) + 1) if two_encoders else ""
        return f"lora_te{number}_text_model_{_under(rest)}"
    return f"lora_unet_{_under(to_original(module) if original else module)}"


def to_original(module: str) -> str:
    """down_blocks.1.attentions.0.X -> input_blocks.4.1.X, as SDXL's own code names its blocks; others as they
    are.
    """
    match = _SIDE.match(module)
    if not match:
        return module
    side, level, index, rest = match[1], match[2], match[3], match[4]
    if side is None:
        return f"middle_block.1.{rest}"
    number = 3 * int(level) + int(index) + (side == "down")
    return f"{'input' if side == 'down' else 'output'}_blocks.{number}.1.{rest}"


def kohya_table(modules: Mapping[str, Shape]) -> dict[str, str]:
    """Every name that kohya's layouts could give to the base's modules, and the module."""
    table = {}
    for module in modules:
        for two in (False, True):
            for original in (False, True):
                table[kohya_name(module, two_encoders=two, original=original)] = module
    return table


def dotted_module(key: str) -> str:
    """unet.X, transformer.X, base_model.model.X, text_encoder.text_model.X and processors' names as a
    module.
    """
    name = key.removeprefix("base_model.model.")
    part, _, rest = name.partition(".")
    if part in ENCODERS:
        return canonical(part, rest)
    if part in ("unet", "transformer"):
        name = rest
    match = _PROCESSOR.match(name)
    if match:
        what = "to_out.0" if match["what"] == "out" else f"to_{match['what']}"
        return f"{match['block']}.{what}"
    return name


def _under(name: str) -> str:
    return name.replace(".", "_")
