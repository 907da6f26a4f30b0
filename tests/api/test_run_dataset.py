"""What metrics see of a run's data."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from recipe_cases import TINY

from genzoo.api.runs.stored import StoredRun
from genzoo.core.recipe import recipe_from


@pytest.mark.parametrize("is_cache", [True, False])
def test_metrics_see_the_images_behind_cached_latents_and_nothing_else(
    tmp_path: Path, is_cache: bool
) -> None:
    pictures = SimpleNamespace()
    dataset: Any = SimpleNamespace(images=pictures, **({"bind_codec": print} if is_cache else {}))
    run = StoredRun(tmp_path, recipe_from(TINY))
    run.__dict__["_dataset"] = dataset
    assert run.dataset() is (pictures if is_cache else dataset)
