from pathlib import Path

import pytest

from genzoo.core.cache_folder import cache_folder
from genzoo.pretrained.known_weights import weights_folders


def test_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    monkeypatch.delenv("GENZOO_CACHE", raising=False)
    assert cache_folder("kernels") == Path("/caches/genzoo/kernels")
    monkeypatch.setenv("GENZOO_CACHE", "/mine")
    assert cache_folder("kernels") == Path("/mine/kernels")


def test_weights_are_looked_for_in_the_cache_that_the_environment_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("GENZOO_WEIGHTS", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    monkeypatch.setenv("GENZOO_CACHE", "/mine")
    assert weights_folders() == [Path("/mine/weights"), Path("/caches/torch/hub/checkpoints")]
    monkeypatch.setenv("GENZOO_WEIGHTS", "/given")
    assert weights_folders()[0] == Path("/given")
