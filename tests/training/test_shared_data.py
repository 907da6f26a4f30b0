"""One of several processes lists the data and looks at their files; the others are told, errors too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fork_server import ForkServer
from PIL import Image

pytestmark = pytest.mark.distributed


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    root = tmp_path / "pictures"
    for number in range(7):
        folder = root / ("cat", "dog", "owl")[number % 3]
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (9, 8), (30 * number, 90, 20)).save(folder / f"{number}.png")
    return root


def share(server: ForkServer, output: Path, **options: Any) -> list[dict[str, Any]]:
    ranks = server.start_ranks("cases:share_data", world=2, output=str(output), **options)
    assert [rank.wait(60) for rank in ranks] == [0, 0], [rank.output() for rank in ranks]
    return [json.loads((output / f"data_{rank}.json").read_text()) for rank in range(2)]


def test_one_process_lists_and_all_have_the_same_data(
    tmp_path: Path, pictures: Path, fork_server: ForkServer
) -> None:
    data = {"name": "image_folder", "root": str(pictures), "image_size": 8}
    first, second = share(fork_server, tmp_path, data=data)
    looks = [(one.pop("scandir"), one.pop("stat")) for one in (first, second)]
    assert first == second
    assert first["labels"] == [0, 0, 0, 1, 1, 2, 2]
    assert looks[0][0] >= 4  # the folder and its three classes
    assert looks[0][1] >= 7
    assert looks[1] == (0, 0)


def test_data_that_cannot_travel_are_built_by_each(
    tmp_path: Path, pictures: Path, fork_server: ForkServer
) -> None:
    data = {"name": "image_folder", "root": str(pictures), "image_size": 8}
    first, second = share(fork_server, tmp_path, data=data, travels=False)
    assert second["scandir"] == first["scandir"] >= 4
    assert first["fingerprint"] == second["fingerprint"]


def test_an_error_in_listing_is_told_by_all(tmp_path: Path, pictures: Path, fork_server: ForkServer) -> None:
    (pictures / "empty").mkdir()
    data = {"name": "image_folder", "root": str(pictures), "image_size": 8}
    ranks = fork_server.start_ranks("cases:share_data", world=2, output=str(tmp_path), data=data)
    assert [rank.wait(60) for rank in ranks] == [4, 4]
    assert all("the class folder 'empty' holds no pictures" in rank.output() for rank in ranks)
