"""Trackers without a network: metrics and previews reach them, a resumed run goes on, no secret is kept."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from recipe_cases import TINY

from genzoo.api.run import train
from genzoo.core.errors import MissingDependencyError, RecipeError
from genzoo.core.recipe import recipe_from
from genzoo.core.run_folder import read_metrics
from genzoo.training import trackers
from genzoo.training.config import TrainConfig

BLOCK, WHOLE, LAST = 32768, 1, 4  # of LevelDB's log
SECRET = "0123456789abcdef0123456789abcdef01234567"


def recipe(*names: str, **settings: Any) -> Any:
    section = {**TINY["train"], "trackers": list(names), "tracker_project": "zoo", **settings}
    return recipe_from({**TINY, "train": section, "report": []})


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("WANDB_API_KEY", "HF_TOKEN", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.setenv(name, SECRET)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "wandb_config"))
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "wandb_cache"))
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")


def logged(folder: Path) -> dict[int, float]:
    return {row["step"]: row["loss"] for row in read_metrics(folder / "metrics.jsonl") if "loss" in row}


def keeps_no_secret(folder: Path) -> bool:
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len(files) > 5
    return not any(SECRET.encode() in path.read_bytes() for path in files)


def test_mlflow_has_every_metric_the_settings_and_the_previews(tmp_path: Path) -> None:
    from mlflow import MlflowClient

    train(recipe("mlflow"), output=tmp_path / "run", until=3)
    train(recipe("mlflow"), output=tmp_path / "run")
    ours = json.loads((tmp_path / "run/trackers.json").read_text())["mlflow"]
    client = MlflowClient()
    (experiment,) = client.search_experiments(filter_string="name = 'zoo'")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.run_id == ours
    found = {one.step: one.value for one in client.get_metric_history(ours, "train/loss")}
    assert found == pytest.approx(logged(tmp_path / "run"))
    assert run.data.params["train.tracker_project"] == "zoo"
    assert [one.path for one in client.list_artifacts(ours, "previews/step_00000003")]
    assert keeps_no_secret(tmp_path / "run")


def test_trackio_has_every_metric_and_the_previews(tmp_path: Path) -> None:
    SQLiteStorage = pytest.importorskip("trackio.sqlite_storage").SQLiteStorage  # asks for Pillow below 13

    train(recipe("trackio"), output=tmp_path / "run", until=3)
    train(recipe("trackio"), output=tmp_path / "run")
    ours = json.loads((tmp_path / "run/trackers.json").read_text())["trackio"]
    rows = SQLiteStorage.get_logs("zoo", ours)
    found = {row["step"]: row["train/loss"] for row in rows if "train/loss" in row}
    assert found == pytest.approx(logged(tmp_path / "run"))
    assert [row["step"] for row in rows if "preview" in row] == [3, 6]
    assert keeps_no_secret(tmp_path / "run")
    assert keeps_no_secret(tmp_path)


def test_wandb_offline_keeps_a_run_beside_the_others(tmp_path: Path) -> None:
    from wandb.proto import wandb_internal_pb2

    train(recipe("wandb"), output=tmp_path / "run")
    (file,) = (tmp_path / "run/wandb").glob("offline-run-*/*.wandb")
    found: dict[int, float] = {}
    pictures: list[str] = []
    for data in log_records(file.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        items = {"/".join(item.nested_key) or item.key: item.value_json for item in record.history.item}
        if "train/loss" in items:
            found[int(items["_step"])] = float(items["train/loss"])
        pictures += [items["_step"]] if any(key.startswith("preview") for key in items) else []
    assert found == pytest.approx(logged(tmp_path / "run"))
    assert pictures == ["3", "6"]
    assert len(list(file.parent.glob("files/media/images/preview*.png"))) == 2
    ours = json.loads((tmp_path / "run/trackers.json").read_text())["wandb"]
    assert file.name == f"run-{ours}.wandb"
    assert keeps_no_secret(tmp_path / "run")


def log_records(content: bytes) -> Iterator[bytes]:
    """Records of a log in LevelDB's form behind seven bytes of its own: blocks of parts with headers."""
    place, parts = 7, b""
    while place + 7 <= len(content):
        left = BLOCK - place % BLOCK
        if left < 7:
            place += left
            continue
        length, kind = struct.unpack("<HB", content[place + 4 : place + 7])
        parts += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (WHOLE, LAST):
            yield parts
            parts = b""


class Failing:
    """A service that goes away after its second message."""

    def __init__(self) -> None:
        self.heard: list[Any] = []

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        self.heard.append(values)

    def log(self, values: dict[str, float], step: int) -> None:
        if len(self.heard) > 1:
            raise ConnectionError("the service went away")
        self.heard.append((step, values))

    def finish(self) -> None:
        self.heard.append("finished")


def test_a_tracker_that_fails_is_left_out_and_the_training_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    service = Failing()
    monkeypatch.setattr(trackers, "_BEGIN", {"mlflow": lambda *given: (service, "mine")})
    run = train(recipe("mlflow"), output=tmp_path / "run")
    assert run.step == 6
    assert service.heard[1][0] == 1
    assert len(service.heard) == 2
    assert "mlflow takes nothing more of this run: the service went away" in caplog.text


def test_a_tracker_that_cannot_begin_ends_the_run_before_its_first_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*given: Any) -> Any:
        raise ConnectionError("no such project")

    monkeypatch.setattr(trackers, "_BEGIN", {"mlflow": refuse})
    with pytest.raises(ConnectionError, match="no such project"):
        train(recipe("mlflow"), output=tmp_path / "run")
    assert not list((tmp_path / "run").glob("checkpoints/step_*"))


def test_unknown_and_missing_trackers_are_told_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RecipeError, match="there is no tracker 'wandbb'; did you mean 'wandb'"):
        TrainConfig(steps=1, batch_size=1, trackers=["wandbb"])
    monkeypatch.setitem(__import__("sys").modules, "trackio", None)
    with pytest.raises(MissingDependencyError, match=r"genzoo\[trackers\]"):
        train(recipe("trackio"), output=tmp_path / "run")
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_previews_reach_tensorboard(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(recipe(tensorboard=True), output=tmp_path / "run")
    events = EventAccumulator(str(tmp_path / "run/tensorboard"))
    events.Reload()
    assert [one.step for one in events.Images("preview")] == [3, 6]
