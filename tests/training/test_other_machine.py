"""env.json says how many threads computed; going on with another number says what that means."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from toys import toy_trainer


def test_a_resume_with_another_number_of_threads_says_that_bits_differ(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    threads = torch.get_num_threads()
    toy_trainer(tmp_path, steps=4).fit()
    assert json.loads((tmp_path / "env.json").read_text())["threads"] == threads
    with caplog.at_level("WARNING"):
        toy_trainer(tmp_path, steps=6).fit()
    assert "bit for bit" not in caplog.text
    torch.set_num_threads(threads + 1)
    try:
        toy_trainer(tmp_path, steps=8).fit()
    finally:
        torch.set_num_threads(threads)
    assert "not bit for bit the run that it was" in caplog.text
    assert f"threads {threads} -> {threads + 1}" in caplog.text
    assert json.loads((tmp_path / "env.json").read_text())["threads"] == threads + 1


@pytest.mark.parametrize("content", ["", "[]", '{"packages": 3}'])
def test_a_damaged_env_json_is_written_anew(tmp_path: Path, content: str) -> None:
    toy_trainer(tmp_path, steps=4).fit()
    (tmp_path / "env.json").write_text(content)
    toy_trainer(tmp_path, steps=6).fit()
    assert json.loads((tmp_path / "env.json").read_text())["processes"] == 1
