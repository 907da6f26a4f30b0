"""One tiny run, trained once for all tests that only look at it."""

from pathlib import Path

import pytest
from clip_cases import CLIPS
from recipe_cases import TINY

from genzoo.api.run import Run, train
from genzoo.core.recipe import recipe_from


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder: Path = tmp_path_factory.mktemp("runs") / "tiny"
    return train(recipe_from(TINY), output=folder)


@pytest.fixture(scope="session")
def trained_clips(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train(recipe_from(CLIPS), output=tmp_path_factory.mktemp("runs") / "clips")
