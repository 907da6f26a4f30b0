"""best/ and the results of a run are right after a kill, after damage, and after going back to a step."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from recipe_cases import TINY

from genzoo.api.run import train
from genzoo.api.sampling import plan as sampling_plan
from genzoo.api.training import evaluation_hook
from genzoo.api.training.best import keep_best, read_result, result_file
from genzoo.core.recipe import Recipe, recipe_from
from genzoo.core.run_folder import read_metrics

STEPS = 6


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENZOO_CACHE", str(tmp_path_factory.getbasetemp() / "best_cache"))


def judged(*, steps: int = STEPS, lr: float = 1e-2) -> Recipe:
    data = copy.deepcopy(TINY)
    data["train"] = {**data["train"], "steps": steps, "checkpoint_every": 2, "keep_last": 9}
    data["optim"] = {**data["optim"], "lr": lr}
    data["evaluation"] = {
        "every": 2, "protocol": "quick-pixels", "num": 8, "steps": 2,
        "keep_best": "pixel_kid", "better": "lower",
    }  # fmt: skip
    data |= {"report": None, "preview": None}
    return recipe_from(data)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "run"
    train(judged(), output=folder)
    return folder


@pytest.fixture
def run(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "run"))


def values(folder: Path) -> dict[int, float]:
    found = {step: read_result(folder, step) for step in range(2, STEPS + 1, 2)}
    return {step: result.metrics["pixel_kid"] for step, result in found.items() if result is not None}


def best(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "best" / "best.json").read_text())


def told(folder: Path) -> list[int]:
    rows = read_metrics(folder / "metrics.jsonl")
    return [row["step"] for row in rows if "evaluation/pixel_kid" in row]


def require_best_of_all(folder: Path) -> None:
    known = values(folder)
    expected = min(known, key=known.__getitem__)
    assert best(folder)["step"] == expected
    assert best(folder)["value"] == known[expected]
    assert [path.name for path in (folder / "best").glob("step_*")] == [f"step_{expected:08d}"]


class Killed(BaseException):
    pass


@pytest.mark.parametrize("step", [2, STEPS])
@pytest.mark.parametrize("place", ["keep_best", "_tell", "_result"])
def test_a_kill_around_a_result_leaves_nothing_out(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, step: int
) -> None:
    run = tmp_path / "run"
    owner: Any = evaluation_hook if place == "keep_best" else evaluation_hook.EvaluationHook
    real = getattr(owner, place)

    def killed(*given: Any) -> Any:
        if (run / "checkpoints" / f"step_{step:08d}").exists():
            raise Killed
        return real(*given)

    with monkeypatch.context() as patch:
        patch.setattr(owner, place, killed)
        with pytest.raises(Killed):
            train(judged(), output=run)
    assert (read_result(run, step) is None) == (place == "_result")
    train(judged(), output=run)
    assert values(run) == values(whole)
    assert told(run) == told(whole) == [2, 4, 6]
    require_best_of_all(run)


@pytest.mark.parametrize("damage", [b"", b"[" * 100_000, b'{"genzoo_evaluation": 1}', b"\xff"], ids=range(4))
def test_a_damaged_result_of_the_newest_step_is_measured_again(whole: Path, run: Path, damage: bytes) -> None:
    result_file(run, STEPS).write_bytes(damage)
    train(judged(), output=run)
    assert values(run) == values(whole)
    assert read_metrics(run / "metrics.jsonl")[-1]["evaluation/pixel_kid"] == values(whole)[STEPS]


def test_a_finished_run_whose_results_are_whole_is_left_alone(run: Path) -> None:
    before = {
        path: path.stat().st_mtime_ns for path in (run / "evaluation", run / "best", run / "status.json")
    }
    train(judged(), output=run)
    assert {path: path.stat().st_mtime_ns for path in before} == before


@pytest.mark.parametrize("left", ["nothing", "the one before"])
def test_a_kill_around_the_note_on_the_best_is_made_up_for(run: Path, left: str) -> None:
    if left == "nothing":
        (run / "best" / "best.json").unlink()
    else:
        other = next(step for step in (2, 4) if step != best(run)["step"])
        shutil.copytree(run / "best" / best(run)["checkpoint"], run / "best" / f"step_{other:08d}")
    train(judged(), output=run)
    require_best_of_all(run)


@pytest.mark.parametrize("damage", [b"", b"[]", b'{"metric": "pixel_kid"}', b"[" * 100_000], ids=range(4))
def test_a_damaged_best_json_neither_ends_a_run_nor_loses_the_best(run: Path, damage: bytes) -> None:
    step, value = best(run)["step"], best(run)["value"]
    checkpoint = run / "checkpoints" / f"step_{STEPS:08d}"
    chosen = judged().data["evaluation"]
    (run / "best" / "best.json").write_bytes(damage)
    hook = evaluation_hook.Evaluation(**chosen)
    worse = keep_best(run, checkpoint, STEPS, hook, {"pixel_kid": value + 1.0})
    assert not worse
    assert (run / "best" / f"step_{step:08d}").is_dir()
    assert keep_best(run, checkpoint, STEPS, hook, {"pixel_kid": value - 1.0})
    assert best(run)["step"] == STEPS


def test_results_of_a_branch_that_was_left_are_set_aside(whole: Path, run: Path) -> None:
    before = values(run)
    train(judged(lr=0.3), output=run, resume=run / "checkpoints" / "step_00000002")
    after = values(run)
    assert after[2] == before[2]
    assert after[4] != before[4]
    assert after[6] != before[6]
    require_best_of_all(run)
    aside = {path.name: json.loads(path.read_text()) for path in (run / "evaluation").glob("aside_*.json")}
    assert {name: found["metrics"]["pixel_kid"] for name, found in aside.items()} == {
        f"aside_step_{step:08d}.json": before[step] for step in (4, 6)
    }
    assert told(run) == [2, 4, 6]


def test_an_evaluation_that_was_killed_goes_on_where_it_was(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[int] = []
    real = sampling_plan.sample_block

    def counted(task: Any, plan: Any, block: range) -> Any:
        if len(drawn) == 3:
            raise Killed
        drawn.append(block.start)
        return real(task, plan, block)

    monkeypatch.setattr(sampling_plan, "sample_block", counted)
    data = judged().data
    blocks = recipe_from({**data, "sampler": {**data["sampler"], "block_size": 2}})
    run, straight = tmp_path / "run", tmp_path / "straight"
    with pytest.raises(Killed):
        train(blocks, output=run)
    assert drawn == [0, 2, 4]
    assert len(list((run / "evaluation" / "parts_00000002").glob("block_*"))) == 3
    drawn.clear()
    drawn += [-1] * 4  # no kill any more
    train(blocks, output=run)
    assert drawn[4:] == [6, *[0, 2, 4, 6] * 2]
    assert not list((run / "evaluation").glob("parts_*"))
    train(blocks, output=straight)
    assert values(run) == values(straight)


def test_parts_of_other_weights_are_never_used(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"

    def killed(*_: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(evaluation_hook.EvaluationHook, "_result", killed)
        with pytest.raises(Killed):
            train(judged(), output=run)
    parts = run / "evaluation" / "parts_00000002"
    about = json.loads((parts / "about.json").read_text())
    (parts / "about.json").write_text(json.dumps(about | {"weights": "0" * 64}))
    for block in parts.glob("block_*"):
        block.write_bytes(b"samples of others")
    train(judged(), output=run)
    assert values(run) == values(whole)


def test_a_run_whose_checkpoints_are_gone_says_that_it_begins_anew(
    run: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.rmtree(run / "checkpoints")
    with caplog.at_level("WARNING"):
        train(judged(), output=run, until=2)
    assert f"logged {STEPS} steps and holds no checkpoint: training starts at step 0 again" in caplog.text
    assert (run / "evaluation" / "aside_step_00000004.json").exists()
