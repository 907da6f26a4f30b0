"""Files that can be sampled although no training left a run folder around them."""

from __future__ import annotations

from pathlib import Path

from genzoo.api.runs.exported_file import open_exported
from genzoo.api.runs.opened_file import OpenedFile, open_source
from genzoo.core.errors import UsageError
from genzoo.core.exported import layout_of
from genzoo.core.tensor_files import look


def open_file(path: Path) -> OpenedFile | None:
    """What `export` wrote, or what the first of SOURCES that knows the path makes of it; None for others.

    Raises WeightsError for a file of weights that cannot be read, UsageError for one that `export` wrote for
    other programs.
    """
    if path.suffix == ".safetensors" and path.is_file() and _is_safetensors(path):
        _require_own_layout(path)
    return open_exported(path) or open_source(path)


def _is_safetensors(path: Path) -> bool:
    """True; False for weights in another format under this name. Raises WeightsError for what are none."""
    if look(path, lambda file: True):
        return True
    from genzoo.pretrained.loading import load_foreign

    load_foreign(path)
    return False


def _require_own_layout(path: Path) -> None:
    layout = layout_of(path)
    if layout is not None:
        raise UsageError(
            f"{path} holds a run's weights in the layout {layout!r}, for other programs",
            fix="sample the run, or what `genzoo export` writes without --to, or make a run of it again:"
            f" genzoo convert {path.name} RUN --from {layout}",
        )
