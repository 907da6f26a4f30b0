"""One of several processes that start a training: to its first step, and no further; see `start_of_ranks`."""

from __future__ import annotations

import json
import os
import re
import resource
import sys
from pathlib import Path
from typing import Any


def main(data: str, results: str) -> None:
    """Build the trainer of a small model on a folder of pictures; what that took goes to RANK.json."""
    from genzoo.api.training.train import build_trainer
    from genzoo.core.recipe import recipe_from

    trainer, _ = build_trainer(recipe_from(_recipe(data)), output=Path(results, "run"))
    assert len(trainer.dataset) > 0
    used = resource.getrusage(resource.RUSAGE_SELF)
    found = {"cpu_seconds": used.ru_utime + used.ru_stime, "megabytes": _own_bytes() / 1e6}
    Path(results, f"{trainer.world.rank}.json").write_text(json.dumps(found))


def _recipe(data: str) -> dict[str, Any]:
    return {
        "name": "start",
        "data": {"name": "image_folder", "root": data, "image_size": 16},
        "codec": {"name": "identity"},
        "task": {"name": "latent_diffusion"},
        "model": {"name": "dit", "patch_size": 2, "hidden_size": 48, "depth": 2, "num_heads": 2},
        "optim": {"name": "adamw", "lr": 1e-3},
        "train": {"steps": 1, "batch_size": 8},
    }


def _own_bytes() -> int:
    """Memory of this process alone, without pages of files, which processes share."""
    found = re.search(r"RssAnon:\s+(\d+)", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


if __name__ == "__main__":
    main(*sys.argv[1:])
    os._exit(0)  # what torch.distributed does at the end is not looked at
