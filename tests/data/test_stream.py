"""The order of the data is a pure function of (seed, position): nothing else may move it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from genzoo.core.errors import DataError, UsageError
from genzoo.data.sample_stream import SampleStream, batches, permutation


class Numbers:
    """Item i is the number i plus noise drawn from the generator; some items are unreadable."""

    sample_shape = (1,)
    num_classes = None
    class_names = None
    fingerprint = "numbers"

    def __init__(self, n: int, broken: tuple[int, ...] = ()) -> None:
        self.n, self.broken = n, broken

    def __len__(self) -> int:
        return self.n

    def fetch(self, index: int, generator: torch.Generator | None = None) -> dict[str, Any]:
        if index in self.broken:
            raise DataError("cannot be read", where=f"file_{index}.png")
        return {"pixels": index + torch.rand(1, generator=generator), "name": f"n{index}"}


def take(stream: SampleStream, steps: int, **cut: Any) -> list[list[dict[str, Any]]]:
    iterator: Iterator[list[dict[str, Any]]] = batches(stream, **cut)
    return list(islice(iterator, steps))


def flat(steps: list[list[dict[str, Any]]], key: str) -> list[float]:
    return [value for step in steps for micro in step for value in micro[key].flatten().tolist()]


@given(seed=st.integers(0, 2**40), epoch=st.integers(0, 9), n=st.integers(1, 60))
def test_every_epoch_shows_every_item_once(seed: int, epoch: int, n: int) -> None:
    stream = SampleStream(Numbers(n), seed=seed)
    shown = [stream.index(position) for position in range(epoch * n, (epoch + 1) * n)]
    assert sorted(shown) == list(range(n))
    assert shown == permutation(seed, epoch, n).tolist()


def test_epochs_and_seeds_differ_in_order() -> None:
    orders = {tuple(permutation(seed, epoch, 23).tolist()) for seed in (0, 1) for epoch in (0, 1, 2)}
    assert len(orders) == 6


def test_without_shuffle_the_order_is_that_of_the_data_set() -> None:
    stream = SampleStream(Numbers(5), seed=3, shuffle=False)
    assert [stream.index(position) for position in range(12)] == [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1]


@given(start=st.integers(0, 40), n=st.integers(1, 30), seed=st.integers(0, 5))
def test_starting_at_a_step_gives_what_the_full_run_has_there(start: int, n: int, seed: int) -> None:
    stream = SampleStream(Numbers(n), seed=seed)
    full = take(stream, start + 2, batch_size=6, per_device=3)
    resumed = take(SampleStream(Numbers(n), seed=seed), 2, batch_size=6, per_device=3, start_step=start)
    assert flat(full[start:], "pixels") == flat(resumed, "pixels")
    assert (
        flat(full[start:], "position") == flat(resumed, "position") == list(range(6 * start, 6 * start + 12))
    )


@pytest.mark.parametrize(("world", "per_device"), [(1, 12), (1, 4), (2, 6), (2, 3), (3, 4), (3, 2), (3, 1)])
def test_world_size_and_accumulation_keep_the_samples_of_a_step(world: int, per_device: int) -> None:
    expected = take(SampleStream(Numbers(17), seed=5), 4, batch_size=12, per_device=12)
    ranks = [
        take(
            SampleStream(Numbers(17), seed=5), 4, batch_size=12, per_device=per_device, world=world, rank=rank
        )
        for rank in range(world)
    ]
    for step in range(4):
        parts = [ranks[rank][step] for rank in range(world)]
        assert all(len(part) == 12 // (world * per_device) for part in parts)
        # micro-batch a of all ranks, in rank order, is one run of positions
        order = [
            (int(p), float(x))
            for a in range(len(parts[0]))
            for part in parts
            for p, x in zip(part[a]["position"], part[a]["pixels"], strict=True)
        ]
        whole = expected[step][0]
        wanted = list(zip(whole["position"].tolist(), whole["pixels"].flatten().tolist(), strict=True))
        assert order == wanted


def test_workers_change_nothing() -> None:
    cut = {"batch_size": 6, "per_device": 2, "start_step": 3}
    alone = take(SampleStream(Numbers(11, broken=(4,)), seed=1, max_bad=1), 7, **cut)
    helped = take(SampleStream(Numbers(11, broken=(4,)), seed=1, max_bad=1), 7, num_workers=2, **cut)
    for key in ("pixels", "position", "index"):
        assert flat(alone, key) == flat(helped, key)
    assert [m["name"] for s in alone for m in s] == [m["name"] for s in helped for m in s]
    assert [m["bad"] for s in alone for m in s] == [m["bad"] for s in helped for m in s]


def test_the_global_generator_is_left_alone() -> None:
    torch.manual_seed(7)
    before = torch.get_rng_state()
    take(SampleStream(Numbers(5), seed=0), 2, batch_size=4, per_device=2)
    take(SampleStream(Numbers(5), seed=0), 2, batch_size=4, per_device=2, num_workers=1)
    assert torch.equal(before, torch.get_rng_state())


def test_bad_items_are_replaced_by_the_next_of_the_epoch_and_named() -> None:
    stream = SampleStream(Numbers(7, broken=(2,)), seed=9, max_bad=1)
    order = permutation(9, 0, 7).tolist()
    position = order.index(2)
    item = stream.fetch(position)
    assert item["index"] == order[(position + 1) % 7]
    assert item["position"] == position
    assert stream.bad == {2: "file_2.png: cannot be read"}
    (micro,) = take(SampleStream(Numbers(7, broken=(2,)), seed=9, max_bad=1), 1, batch_size=7, per_device=7)[
        0
    ]
    assert micro["bad"] == ["file_2.png: cannot be read"]
    assert 2 not in micro["index"].tolist()


@given(broken=st.sets(st.integers(0, 12), min_size=1, max_size=6), start=st.integers(0, 5))
def test_replacement_does_not_depend_on_where_the_run_started(broken: set[int], start: int) -> None:
    data = Numbers(13, broken=tuple(broken))
    full = take(SampleStream(data, seed=2, max_bad=6), 7, batch_size=5, per_device=5)
    late = take(
        SampleStream(data, seed=2, max_bad=6), 7 - start, batch_size=5, per_device=5, start_step=start
    )
    assert flat(full[start:], "index") == flat(late, "index")
    assert flat(full[start:], "pixels") == flat(late, "pixels")


@pytest.mark.parametrize("num_workers", [0, 2])
def test_more_bad_items_than_allowed_stop_the_run_by_name(num_workers: int) -> None:
    stream = SampleStream(Numbers(9, broken=(1, 5)), seed=0, max_bad=1)
    with pytest.raises(DataError, match=r"2 unreadable.*max_bad=1") as caught:
        take(stream, 9, batch_size=3, per_device=1, num_workers=num_workers)
    assert "file_1.png" in str(caught.value)
    assert "file_5.png" in str(caught.value)
    assert "Traceback" not in str(caught.value)


def test_strict_by_default_and_all_bad_does_not_hang() -> None:
    with pytest.raises(DataError, match="max_bad=0"):
        SampleStream(Numbers(3, broken=(0, 1, 2)), seed=0).fetch(0)
    with pytest.raises(DataError, match="not one item"):
        SampleStream(Numbers(3, broken=(0, 1, 2)), seed=0, max_bad=3).fetch(0)
    with pytest.raises(DataError, match="empty"):
        SampleStream(Numbers(0), seed=0)


def test_a_data_set_that_fetches_many_meets_the_same_items() -> None:
    class Many(Numbers):
        augments = False

        def fetch(self, index: int, generator: torch.Generator | None = None) -> dict[str, Any]:
            assert generator is None
            return {"pixels": torch.tensor([float(index)])}

        def fetch_many(self, indices: list[int], generators: list[Any]) -> dict[str, Any]:
            assert generators == [None] * len(indices)
            return {"pixels": torch.tensor(indices, dtype=torch.float32)[:, None]}

    class One(Many):
        fetch_many = None  # type: ignore[assignment]

    cut = {"batch_size": 6, "per_device": 3}
    many, one = take(SampleStream(Many(8), seed=4), 5, **cut), take(SampleStream(One(8), seed=4), 5, **cut)
    for key in ("pixels", "position", "index"):
        assert flat(many, key) == flat(one, key)
        assert many[0][0][key].dtype == one[0][0][key].dtype


@pytest.mark.parametrize(
    ("batch_size", "per_device", "rank", "world"), [(10, 4, 0, 1), (6, 2, 0, 2), (8, 4, 2, 2)]
)
def test_batches_that_do_not_divide_are_refused(
    batch_size: int, per_device: int, rank: int, world: int
) -> None:
    stream = SampleStream(Numbers(8), seed=0)
    with pytest.raises(UsageError):
        batches(stream, batch_size=batch_size, per_device=per_device, rank=rank, world=world)


def test_items_that_do_not_fit_together_are_named() -> None:
    class Ragged(Numbers):
        def fetch(self, index: int, generator: torch.Generator | None = None) -> dict[str, Any]:
            return {"pixels": torch.zeros(index + 1)}

    with pytest.raises(DataError, match=r"'pixels' has different shapes.*\(1,\)"):
        take(SampleStream(Ragged(3), seed=0), 1, batch_size=3, per_device=3)
