"""Where a run starts: from nothing, from its own newest checkpoint, or from one the user names."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from genzoo.core.checkpoint import Verify, checkpoint_steps, latest_valid
from genzoo.core.checkpoint_manifest import verify_checkpoint
from genzoo.core.errors import CheckpointError, UsageError
from genzoo.core.run_folder import RunFolder, read_metrics

logger = logging.getLogger(__name__)


def find_start(folder: RunFolder, resume: str | Path, verify: Verify = verify_checkpoint) -> Path | None:
    """The checkpoint to continue from, or None to start at step 0.

    resume: "auto", "never", or the path of a checkpoint or of a run folder.   verify: each step that is
    looked at. Never starts over in silence: raises UsageError when "never" meets an earlier run,
    CheckpointError when a path is missing or corrupt.
    """
    if str(resume) == "auto":
        path = latest_valid(folder.checkpoints, verify)
    elif str(resume) == "never":
        if folder.has_run():
            raise UsageError(
                "this folder holds an earlier run, and --resume never would mix the two",
                where=str(folder.path),
                fix="choose another --output, remove the folder, or continue with --resume auto",
            )
        return None
    else:
        path = _named(folder, Path(resume), verify)
    if path is not None:
        logger.info("resuming from %s", path)
    elif folder.has_run():
        _tell_of_start_over(folder)
    return path


def _tell_of_start_over(folder: RunFolder) -> None:
    """Losses are there and no checkpoint: it was stopped before the first, or somebody removed them."""
    logged = read_metrics(folder.metrics) if folder.metrics.is_file() else []
    done = max((row["step"] for row in logged), default=0)
    if done:
        text = "%s logged %d steps and holds no checkpoint: training starts at step 0 again"
        logger.warning(text, folder.path, done)


def _named(folder: RunFolder, path: Path, verify: Verify) -> Path:
    if not path.is_dir():
        raise CheckpointError(
            "there is nothing to resume from here",
            where=str(path),
            fix="name a checkpoint (RUN/checkpoints/step_...) or a run folder, or use --resume auto",
        )
    found = latest_valid(path / "checkpoints", verify) if (path / "checkpoints").is_dir() else path
    if found is None:
        raise CheckpointError("this run has no checkpoint yet", where=str(path))
    own = found.resolve().parent == folder.checkpoints.resolve()
    if not own and checkpoint_steps(folder.checkpoints):
        raise UsageError(
            "this folder has checkpoints of its own; those of another run cannot be mixed in",
            where=str(folder.path),
            fix="choose another --output for the continued run",
        )
    return found


def require_same_run(saved: Mapping[str, Any], present: Mapping[str, Any], *, where: str) -> None:
    """Raise when a continued run would not be the same run; warn where a change is allowed but matters."""
    missing = [key for key in (*present, "ema", "scaler") if key not in saved]
    if missing:
        raise CheckpointError("the checkpoint lacks " + ", ".join(missing), where=where)
    if saved["optimizer"] != present["optimizer"]:
        raise CheckpointError(
            "the checkpoint's optimizer state does not fit the recipe's optimizer",
            where=where,
            why=f"it was made by {saved['optimizer']}; the recipe now says {present['optimizer']}",
            fix="set optim.name back, or start a new run with another --output",
        )
    changed = [
        f"train.{key}: {saved[key]} -> {present[key]}"
        for key in ("seed", "batch_size")
        if saved[key] != present[key]
    ]
    if changed:
        raise UsageError(
            "a resumed run must keep the order of its data: " + "; ".join(changed),
            where=where,
            fix="set it back, or start a new run with another --output",
        )
    require_same_classes(saved, present, where=where)
    if saved["dataset"] != present["dataset"]:
        counts = [known["dataset"]["items"] for known in (saved, present)]
        raise UsageError(
            "the data are not those that this run was trained on",
            where=where,
            why=f"{counts[0]} items then, {counts[1]} now"
            if counts[0] != counts[1]
            else "names, sizes, labels or settings of the items changed",
            fix="give it the same data, or start another run: --output NEW; init_from.path=THIS_RUN begins"
            " it with these weights",
        )
    if saved["precision"] != present["precision"]:
        logger.warning("precision: %s -> %s", saved["precision"], present["precision"])


def require_same_classes(saved: Mapping[str, Any], present: Mapping[str, Any], *, where: str) -> None:
    """Raise UsageError when labels would mean other classes than before; old checkpoints have no names."""
    before, now = saved.get("classes"), present.get("classes")
    if before is None or now is None or before == now:
        return
    gone = [name for name in before if name not in now]
    new = [name for name in now if name not in before]
    moved = [name for name in before if name in now and before.index(name) != now.index(name)]
    told = [
        f"{text} {', '.join(names[:6])}{' ...' if len(names) > 6 else ''}"
        for text, names in (("gone:", gone), ("new:", new), ("with another label:", moved))
        if names
    ]
    raise UsageError(
        f"the classes are not those that this run was trained on ({len(before)} then, {len(now)} now)",
        where=where,
        why="; ".join(told),
        fix="give the class folders their names back, or list the classes in their old order"
        " (data.class_names), or start another run with another --output",
    )
