import os
from pathlib import Path

import pytest

import genzoo.core.cache_folder as cache_module
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


@pytest.fixture
def without_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A container that runs as a bare user id: no HOME, and no entry that tells one."""
    for name in ("HOME", "XDG_CACHE_HOME", "GENZOO_CACHE"):
        monkeypatch.delenv(name, raising=False)

    def home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", home)
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    cache_module._private.cache_clear()
    return tmp_path


def test_without_a_home_caches_lie_in_a_private_folder_and_one_line_says_so(
    without_home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = cache_folder("kernels")
    assert folder.parents[1].parent == without_home
    assert folder.parents[1].stat().st_mode & 0o777 == 0o700
    assert cache_folder("unpacked").parent == folder.parent
    assert weights_folders()[0] == folder.parent / "weights"
    (line,) = caplog.messages
    assert "GENZOO_CACHE=FOLDER" in line


def test_a_folder_that_others_can_write_holds_no_programs_of_ours(without_home: Path) -> None:
    cache_folder("kernels")
    (theirs,) = without_home.iterdir()
    theirs.chmod(0o777)
    cache_module._private.cache_clear()
    assert theirs not in cache_folder("kernels").parents
    theirs.rmdir()
    theirs.symlink_to(without_home)
    cache_module._private.cache_clear()
    assert theirs not in cache_folder("kernels").parents


def test_a_home_that_cannot_be_written_is_not_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("GENZOO_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home/.cache"))
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr("os.access", lambda path, mode: False)
    cache_module._private.cache_clear()
    assert cache_folder("kernels").is_relative_to(tmp_path / f"genzoo-cache-{os.getuid()}")
    assert "home/.cache/genzoo cannot be written" in caplog.text
    (tmp_path / "home").write_text("a file")
    assert cache_folder("videos").is_relative_to(tmp_path / f"genzoo-cache-{os.getuid()}")


def test_nothing_reads_the_home_folder_by_itself() -> None:
    root = Path(cache_module.__file__).parents[1]
    found = [path.name for path in root.rglob("*.py") if "Path.home" in path.read_text(encoding="utf-8")]
    assert found == ["cache_folder.py"]
