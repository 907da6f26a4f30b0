"""The held-out loss: one table for every checkpoint, and a split that follows the items."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from recipe_cases import TINY

from genzoo.api.recipes.build import assemble
from genzoo.api.recipes.plan import check_recipe, plan_of
from genzoo.api.training.train import build_trainer, train_recipe
from genzoo.core.errors import DataError, RecipeError, UsageError
from genzoo.core.processes import World
from genzoo.core.recipe import Recipe, recipe_from
from genzoo.core.types import Task
from genzoo.data.digits import Digits
from genzoo.data.held_out import identities, require_disjoint, split_by_share
from genzoo.data.image_folder import ImageFolder
from genzoo.training.held_out import HeldOutLoss, HeldOutTable

FLOW = {
    "task": {"name": "flow_matching", "times": {"name": "logit_normal"}, "label_dropout": 0.5},
    "sampler": {"name": "flow_euler", "steps": 2},
    "model": {**TINY["model"], "num_classes": 10, "input_size": 8, "in_channels": 1},
}


def recipe(**sections: Any) -> Recipe:
    return recipe_from({**TINY, **FLOW, "preview": {"every": 0}, "report": [], **sections})


def flow_task(seed: int = 0) -> Task:
    task = assemble(plan_of(recipe(train={**TINY["train"], "seed": seed})), None)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in task.model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    task.model.eval()
    return task


def table(task: Task, world: World | None = None, *, seed: int = 0, num: int = 21) -> HeldOutTable:
    loss = HeldOutLoss(task, Digits(), range(0, 10 * num, 10), strata=3, seed=seed, block_size=8)
    return loss.measure(task.model, torch.device("cpu"), None, world or World.single())


class Pair(World):
    """Two threads that stand for two processes."""

    def __init__(self, rank: int, shared: list[Any], barrier: threading.Barrier) -> None:
        super().__init__(rank, 2)
        object.__setattr__(self, "shared", shared)
        object.__setattr__(self, "barrier", barrier)

    def gather(self, value: Any) -> list[Any]:
        self.shared[self.rank] = value
        self.barrier.wait(timeout=60)
        found = list(self.shared)
        self.barrier.wait(timeout=60)
        return found


def test_the_same_weights_give_the_same_bits_on_one_process_and_on_two() -> None:
    task = flow_task()
    first, again = table(task), table(task)
    assert torch.equal(first.losses, again.losses)
    shared, barrier, found = [None, None], threading.Barrier(2), {}

    def run(rank: int) -> None:
        found[rank] = table(task, Pair(rank, shared, barrier))

    threads = [threading.Thread(target=run, args=(rank,)) for rank in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
    for rank in (0, 1):
        assert torch.equal(found[rank].losses, first.losses)
        assert torch.equal(found[rank].density, first.density)


def test_fresh_noise_varies_where_the_table_does_not_and_hides_small_differences() -> None:
    one, other = flow_task(0), flow_task(0)
    with torch.no_grad():
        for parameter in other.model.parameters():
            parameter.mul_(1.01)
    fresh = torch.tensor(
        [[table(task, seed=seed).values()["loss"] for seed in range(5)] for task in (one, other)]
    )
    assert fresh[0].std() > 0
    paired = (fresh[0] - fresh[1]).std()
    unpaired = (fresh[0] - fresh[1].roll(1)).std()
    assert unpaired > 5 * paired


def test_every_item_meets_every_stratum_once_with_its_label() -> None:
    task: Any = flow_task()
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    original = task.sample_losses

    def watched(model: Any, batch: Any) -> torch.Tensor:
        seen.append((batch["times"], batch["class_labels"]))
        return original(model, batch)

    task.sample_losses = watched
    table(task, num=8)
    for stratum, (times, labels) in enumerate(seen):
        assert (times * 3).floor().eq(stratum).all()
        assert labels.lt(10).all()  # no label is hidden, whatever label_dropout says
    assert torch.equal(seen[0][1], seen[2][1])


def test_the_mean_as_training_weighs_it_follows_the_density_of_times() -> None:
    found = table(flow_task())
    values = found.values()
    assert values["loss"] == pytest.approx(sum(values[f"stratum/{k}"] for k in range(3)) / 3)
    each = found.losses.mean(1)
    assert values["loss_se"] == pytest.approx((each.var(correction=1) / len(each)).sqrt().item())
    assert "loss_se" not in HeldOutTable(found.losses[:1], found.density[:1]).values()
    weighted = (found.losses * found.density).sum() / found.density.sum()
    assert values["loss_trained"] == pytest.approx(weighted.item())
    assert found.density[:, 1].mean() > found.density[:, 0].mean()  # logit-normal times stay in the middle


def test_a_run_logs_raw_and_averaged_weights_and_never_trains_on_what_it_holds_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    chosen = recipe(held_out={"share": 0.2, "every": 3, "num": 16, "strata": 2})
    trainer, _ = build_trainer(chosen, output=tmp_path / "seen")
    names = identities(Digits())
    training, held = split_by_share(names, 0.2)
    assert len(trainer.stream) == len(training)
    shown = {trainer.stream.index(position) for position in range(len(training))}
    assert shown == set(training)
    assert not {names[index] for index in shown} & {names[index] for index in held}
    with caplog.at_level("INFO"):
        train_recipe(chosen, output=tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    logged = [line for line in lines if "held_out/loss" in line]
    assert [line["step"] for line in logged] == [3, 6]
    for name in ("loss", "loss_trained", "stratum/0", "stratum/1"):
        assert {f"held_out/{name}", f"held_out/raw_{name}"} <= set(logged[0])
    assert logged[1]["held_out/loss"] != logged[1]["held_out/raw_loss"]
    assert "held_out: loss" in caplog.text
    assert "stratum" not in caplog.text


def test_measuring_changes_nothing_of_the_training(tmp_path: Path) -> None:
    plain = recipe(data={"name": "digits", "split": "train"})
    watched = recipe(
        data={"name": "digits", "split": "train"},
        held_out={"data": {"split": "test"}, "every": 2, "num": 8, "strata": 2},
    )
    losses = []
    for name, chosen in (("plain", plain), ("watched", watched)):
        train_recipe(chosen, output=tmp_path / name)
        lines = (tmp_path / name / "metrics.jsonl").read_text().splitlines()
        losses.append([row["loss"] for row in map(json.loads, lines) if "loss" in row])
    assert losses[0] == losses[1]


def test_a_resumed_run_measures_the_same(tmp_path: Path) -> None:
    section = {"share": 0.1, "every": 2, "num": 8, "strata": 2}

    def logged(folder: Path) -> list[dict[str, Any]]:
        lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
        return [line for line in lines if "held_out/loss" in line]

    whole = recipe(held_out=section)
    train_recipe(whole, output=tmp_path / "whole")
    short = recipe(held_out=section, train={**TINY["train"], "steps": 4})
    train_recipe(short, output=tmp_path / "cut")
    train_recipe(whole, output=tmp_path / "cut")
    assert logged(tmp_path / "cut")[-1] == logged(tmp_path / "whole")[-1]


def copied(folder: Path, names: list[str]) -> Path:
    from PIL import Image

    for value, name in enumerate(names):
        path = folder / "class" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (value % 256, 3, 5)).save(path)
    return folder


def test_files_are_divided_by_name_wherever_they_lie(tmp_path: Path) -> None:
    names = [f"{number:03d}.png" for number in range(60)]
    here = ImageFolder(str(copied(tmp_path / "here", names)), image_size=8)
    there = ImageFolder(str(copied(tmp_path / "other/place", names[10:])), image_size=8)

    def held(dataset: ImageFolder) -> set[str]:
        found = split_by_share(identities(dataset), 0.3)[1]
        return {Path(dataset.path(index)).name for index in found}

    assert held(there) == held(here) - set(names[:10])


def test_twins_stay_on_one_side() -> None:
    names = ["a", "b", "a", "c", "b", "d", "e", "f"] * 3
    training, held = split_by_share(names, 0.5)
    assert not {names[i] for i in training} & {names[i] for i in held}
    assert sorted(training + held) == list(range(24))


@pytest.mark.parametrize(("share", "left"), [(1e-9, "the held-out part"), (1 - 1e-9, "training")])
def test_an_empty_split_is_an_error(share: float, left: str) -> None:
    with pytest.raises(DataError, match=f"nothing is left for {left}"):
        split_by_share(["a", "b", "c"], share)


def test_shared_items_are_an_error_that_names_three() -> None:
    with pytest.raises(DataError, match=r"4 held-out item\(s\) are trained on") as caught:
        require_disjoint(list("abcdef"), list("xfedcx"))
    assert "f, e, d ..." in str(caught.value)
    require_disjoint(list("abc"), list("def"))


BROKEN: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: recipe(held_out={}), RecipeError, "either a share of the data, or other data"),
    (lambda: recipe(held_out={"share": 0.1, "data": {}}), RecipeError, "and not both"),
    (lambda: recipe(held_out={"share": 1.5}), RecipeError, "lies between 0 and 1"),
    (
        lambda: recipe(held_out={"share": 0.1, "strata": 0}),
        RecipeError,
        "held_out.strata: must be at least 1",
    ),
    (lambda: recipe(held_out={"shrae": 0.1}), RecipeError, "did you mean 'share'"),
]


@pytest.mark.parametrize(("build", "kind", "message"), BROKEN, ids=[message for _, _, message in BROKEN])
def test_impossible_sections_are_refused(
    build: Callable[[], Recipe], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        check_recipe(build())


def test_overlap_is_found_before_anything_is_written(tmp_path: Path) -> None:
    chosen = recipe(held_out={"data": {"split": "test"}, "every": 2})
    with pytest.raises(DataError, match="are trained on, too"):
        train_recipe(chosen, output=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_task_without_held_out_losses_says_so() -> None:
    class Other:
        model = torch.nn.Linear(1, 1)

    with pytest.raises(UsageError, match="no held-out loss"):
        HeldOutLoss(Other(), Digits(), [0], strata=1, seed=0, block_size=1)
