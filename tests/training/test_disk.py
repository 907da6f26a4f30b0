"""A disk that refuses to take a checkpoint stops the run with a clear error and harms nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from compare import final
from fork_server import ForkServer
from toys import toy_trainer

from genzoo.core.checkpoint import latest_valid

pytestmark = pytest.mark.distributed


def test_a_full_disk_ends_the_run_and_the_next_one_goes_on(
    tmp_path: Path, fork_server: ForkServer, saving: dict[str, str]
) -> None:
    options = {"output": str(tmp_path), "model": {"hidden": 500}, "optim": {"name": "adamw"}, **saving}
    assert fork_server.start("cases:train", steps=4, **options).wait() == 0
    child = fork_server.start("cases:train_with_file_limit", limit=20_000, steps=12, **options)
    assert child.wait() == 4
    assert "cannot write the checkpoint of" in child.output()
    assert "step_00000008" in child.output()
    assert latest_valid(tmp_path / "checkpoints") == tmp_path / "checkpoints" / "step_00000004"
    assert not list(tmp_path.rglob(".tmp-*"))
    assert fork_server.start("cases:train", steps=12, **options).wait() == 0
    assert final(tmp_path).step == 12


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(Exception, match="the run folder cannot be written"):
        toy_trainer(tmp_path / "file" / "run").fit()
