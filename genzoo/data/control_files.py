"""Controls as PNG files that say which extractor made them."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image, PngImagePlugin
from torch import Tensor

from genzoo.core.contracts import able
from genzoo.core.contracts.parts import HasFingerprint, SaysSettings
from genzoo.core.errors import UsageError
from genzoo.core.reading import read_bytes
from genzoo.pictures.pixels import nearest_levels

EXTRACTOR, SOURCE, SETTINGS = "genzoo:extractor", "genzoo:source", "genzoo:settings"


def control_png(control: Tensor, *, extractor: str, source: str = "", settings: str = "") -> bytes:
    """A control (3, h, w) in [-1, 1] as a PNG, grey where its channels are alike.

    extractor: its fingerprint.   source: a hash of the picture.   settings: of the extractor, for people.
    """
    levels = nearest_levels(control).byte().movedim(0, -1).cpu().numpy()
    grey = bool((levels == levels[..., :1]).all())
    facts = PngImagePlugin.PngInfo()
    facts.add_text(EXTRACTOR, extractor)
    facts.add_text(SOURCE, source)
    if settings:
        facts.add_text(SETTINGS, settings)
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(levels[..., 0] if grey else levels)).save(
        buffer, "png", pnginfo=facts
    )
    return buffer.getvalue()


def control_facts(path: Path) -> dict[str, str]:
    """What a control's file says of itself; empty for files of other programs, or that cannot be read.

    EXTRACTOR, SOURCE, and of files made by a newer genzoo than 0.2.0 SETTINGS.
    """
    try:
        content = read_bytes(path)
        with Image.open(io.BytesIO(content), formats=("PNG",)) as image:
            image.load()
            text = image.text if isinstance(image, PngImagePlugin.PngImageFile) else {}
            return {key: str(text[key]) for key in (EXTRACTOR, SOURCE, SETTINGS) if key in text}
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):  # DataError is a ValueError
        return {}


def require_extractor(path: Path, extractor: HasFingerprint) -> None:
    """Raise UsageError when a control's file says that another extractor made it."""
    facts, told = control_facts(path), able(extractor, SaysSettings)
    theirs, ours = facts.get(EXTRACTOR), extractor.fingerprint
    if theirs is not None and theirs != ours:
        said, own = facts.get(SETTINGS), "" if told is None else told.described
        if said and own and said != own:  # else their weights differ, of which the hash tells
            theirs, ours = said, own
        raise UsageError(
            "this control was made by another extractor, or by other settings or weights of it",
            where=str(path),
            why=f"it says {theirs}; the model was trained with {ours}",
            fix="extract it again: `genzoo prepare controls PICTURE --like RUN`, or control_from=PICTURE",
        )
