"""Numbers from files of others have bounds that messages name; out of memory is exit code 6 everywhere."""

from __future__ import annotations

import errno

import pytest
import torch

from genzoo.api.commands.terminal import report_error
from genzoo.cli import main
from genzoo.core.errors import RecipeError, is_out_of_memory
from genzoo.training.config import TrainConfig


class OutOfMemoryError(RuntimeError):
    """As torch's accelerators name theirs."""


def too_large() -> None:
    torch.empty(2**62, dtype=torch.uint8)


def beyond_any_memory() -> None:
    torch.empty((2**40, 2**40), dtype=torch.float32)


@pytest.mark.parametrize("allocate", [too_large, beyond_any_memory, lambda: bytearray(2**62)])
def test_what_allocators_say_is_exit_code_6(allocate: object, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises((RuntimeError, MemoryError)) as caught:
        allocate()  # type: ignore[operator]
    assert report_error(caught.value) == 6
    assert "out of memory" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "found"),
    [
        (OutOfMemoryError("CUDA"), True),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), True),
        (RuntimeError("MPS backend out of memory"), True),
        (OSError(errno.ENOSPC, "No space left on device"), False),
        (RuntimeError("shapes do not fit"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_only_a_lack_of_memory_counts(error: Exception, found: bool) -> None:
    assert is_out_of_memory(error) is found


def test_the_number_of_loader_workers_has_a_limit_that_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RecipeError, match=r"train\.num_workers: must be at most 1024, not 1000000"):
        TrainConfig(steps=1, batch_size=1, num_workers=1_000_000)
    with pytest.raises(SystemExit) as stop:
        main(["prepare", "latents", "dim_b4_imagenet", "--num-workers", "1000000"])
    assert stop.value.code == 2
    assert "1024" in capsys.readouterr().err
