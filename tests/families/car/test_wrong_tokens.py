"""Wrong tokens in training: how many, of whose stream, and that finer scales make up for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from families.car.tiny import NUM_CLASSES, pictures, streams, tiny_codec, tiny_task, tiny_var

from genzoo.core.errors import UsageError
from genzoo.core.seeds import SampleStreams
from genzoo.families.car.vqvae.wrong_tokens import with_wrong_tokens


def wrong_ones(folder: Path, num: int = 40, most: float = 0.6) -> tuple[Any, torch.Tensor, Any, Any]:
    codec = tiny_codec(folder)
    latents = codec.moments(pictures(num))
    return codec, latents, *with_wrong_tokens(codec.quantizer, latents, most, streams(*range(num)))


def test_shares_of_wrong_tokens_spread_evenly_up_to_the_largest(tmp_path: Path) -> None:
    _, _, right, shown = wrong_ones(tmp_path, 200)
    shares = (torch.cat(right, 1) != torch.cat(shown, 1)).float().mean(1)
    # of 21 tokens; one code in sixteen is drawn right by chance
    assert shares.mean().item() == pytest.approx(0.3 * 15 / 16, abs=0.05)
    assert (shares < 0.1).float().mean().item() == pytest.approx(0.2, abs=0.1)


def test_a_finer_scale_codes_what_the_shown_tokens_leave(tmp_path: Path) -> None:
    codec, latents, right, shown = wrong_ones(tmp_path)
    sums = codec.quantizer.partial_sums(shown)
    for scale in (1, 2):
        left = latents - sums[scale - 1]
        size = codec.quantizer.sizes[scale]
        left = torch.nn.functional.interpolate(left, size=size, mode="area")
        assert torch.equal(right[scale], codec.quantizer.nearest(left))
    assert torch.equal(right[0], codec.tokens(latents)[0])


def test_what_is_wrong_of_a_sample_depends_on_its_stream_alone(tmp_path: Path) -> None:
    codec, latents, right, shown = wrong_ones(tmp_path, 6)
    alone = with_wrong_tokens(codec.quantizer, latents[4:5], 0.6, streams(4))
    for scale in range(3):
        assert torch.equal(alone[0][scale], right[scale][4:5])
        assert torch.equal(alone[1][scale], shown[scale][4:5])


def test_a_task_predicts_the_right_tokens_and_reads_the_shown(tmp_path: Path) -> None:
    task = tiny_task(tmp_path, tiny_var(), wrong_tokens=0.9, label_dropout=0.0)
    batch = {"pixels": pictures(6), "class_labels": torch.arange(6) % NUM_CLASSES}
    prepared = task.prepare_batch(batch, streams(*range(6)))
    latents = task.codec.moments(batch["pixels"])
    right, shown = with_wrong_tokens(task.codec.quantizer, latents, 0.9, streams(*range(6)))
    assert torch.equal(prepared["ids"], torch.cat(right, 1))
    assert torch.equal(prepared["teacher_input"], torch.cat(task.codec.quantizer.teacher_input(shown), 1))


def test_without_wrong_tokens_nothing_is_drawn_for_them(tmp_path: Path) -> None:
    task = tiny_task(tmp_path, tiny_var(), label_dropout=0.5)
    used, fresh = (SampleStreams.from_seeds(3, "noise", positions=range(4)) for _ in range(2))
    task.prepare_batch({"pixels": pictures(4), "class_labels": torch.arange(4)}, used)
    fresh.rand()
    assert torch.equal(used.rand(), fresh.rand())


@pytest.mark.parametrize("share", [-0.1, 1.0])
def test_a_share_of_wrong_tokens_has_bounds(tmp_path: Path, share: float) -> None:
    with pytest.raises(UsageError, match="wrong_tokens"):
        tiny_task(tmp_path, tiny_var(), wrong_tokens=share)
