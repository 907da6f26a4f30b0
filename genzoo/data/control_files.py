"""Controls as PNG files that say which extractor made them."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image, PngImagePlugin
from torch import Tensor

from genzoo.core.errors import UsageError
from genzoo.core.reading import read_bytes
from genzoo.pictures.pixels import nearest_levels

EXTRACTOR, SOURCE = "genzoo:extractor", "genzoo:source"


def control_png(control: Tensor, *, extractor: str, source: str = "") -> bytes:
    """A control (3, h, w) in [-1, 1] as a PNG, grey where its channels are alike.

    extractor: its fingerprint.   source: a hash of the picture.
    """
    levels = nearest_levels(control).byte().movedim(0, -1).cpu().numpy()
    grey = bool((levels == levels[..., :1]).all())
    facts = PngImagePlugin.PngInfo()
    facts.add_text(EXTRACTOR, extractor)
    facts.add_text(SOURCE, source)
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(levels[..., 0] if grey else levels)).save(
        buffer, "png", pnginfo=facts
    )
    return buffer.getvalue()


def control_facts(path: Path) -> dict[str, str]:
    """What a control's file says of itself; empty for files of other programs, or that cannot be read."""
    try:
        content = read_bytes(path)
        with Image.open(io.BytesIO(content), formats=("PNG",)) as image:
            image.load()
            text = image.text if isinstance(image, PngImagePlugin.PngImageFile) else {}
            return {key: str(text[key]) for key in (EXTRACTOR, SOURCE) if key in text}
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):  # DataError is a ValueError
        return {}


def require_extractor(path: Path, extractor: str) -> None:
    """Raise UsageError when a control's file says that another extractor made it."""
    made_by = control_facts(path).get(EXTRACTOR, extractor)
    if made_by != extractor:
        raise UsageError(
            "this control was made by another extractor, or by other settings or weights of it",
            where=str(path),
            why=f"it says {made_by}; the model was trained with {extractor}",
            fix="extract it again: `genzoo prepare controls`, or control_from=PICTURE",
        )
