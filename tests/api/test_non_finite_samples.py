"""Numbers that are not finite end sampling with an error, in every family, and never as a black picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from genzoo.api.run import Run, load_run
from genzoo.api.sampling.non_finite import finite_samples
from genzoo.cli import main
from genzoo.core.errors import NonFiniteError, UsageError
from genzoo.diffusion.latents import decoded


class Breaks(nn.Module):
    """Its layer returns NaN in its third call."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.calls = nn.Identity(), 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        y: torch.Tensor = self.layer(x * torch.nan if self.calls % 5 == 3 else x)
        return y


def test_step_module_and_samples_are_named() -> None:
    model = Breaks()

    def draw() -> torch.Tensor:
        model.calls = 0
        x = torch.ones(4, 1, 2, 3)
        for _ in range(5):
            x = x.clone()
            x[2:] = model(x)[2:]
        return x

    with pytest.raises(NonFiniteError, match=r"samples 12, 13; step 3 of sampling.*module 'layer'") as caught:
        finite_samples(model, draw, range(10, 14))
    assert caught.value.exit_code == 5


def test_an_error_that_such_numbers_cause_is_told_as_what_it_is() -> None:
    model = Breaks()

    def draw() -> torch.Tensor:
        model.calls = 2
        return torch.multinomial(model(torch.ones(2, 3)), 1)

    with pytest.raises(NonFiniteError, match=r"(?s)samples 0, 1; step 1 of sampling.*probability tensor"):
        finite_samples(model, draw, range(2))

    def broken() -> torch.Tensor:
        raise RuntimeError("something else")

    with pytest.raises(RuntimeError, match="something else"):
        finite_samples(model, broken, range(2))


def test_infinity_is_not_clamped_to_white() -> None:
    for value in (torch.inf, -torch.inf, torch.nan, 1e30):
        with pytest.raises(NonFiniteError, match="the sampler returned"):
            decoded(torch.full((2, 1, 3, 4), value), None, 1)
    assert decoded(torch.full((2, 1, 3, 4), 3.0), None, 1).max() == 1


def test_weights_that_diverged_make_no_pictures(
    trained: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = load_run(trained.folder)
    task: Any = run.task(device="cpu")
    with torch.no_grad():
        next(task.model.parameters()).fill_(torch.nan)
    with pytest.raises(NonFiniteError, match=r"step 1 of sampling"):
        run.sample_to(tmp_path / "out", num=2, device="cpu")
    with torch.no_grad():
        for parameter in task.model.parameters():
            parameter.fill_(3e38)
    with pytest.raises(NonFiniteError, match=r"samples 0, 1"):
        run.sample(num=2, device="cpu")
    with pytest.raises(NonFiniteError):
        run.evaluate("quick-pixels", num=12, seed=4321)  # samples that no other test has left here
    assert not (tmp_path / "out").exists()
    for scale in ("nan", "inf", "1e30"):
        with pytest.raises(SystemExit) as stop:
            main(
                [
                    "sample",
                    str(trained.folder),
                    "--num",
                    "2",
                    "--guidance-scale",
                    scale,
                    "--out",
                    str(tmp_path / "g"),
                ]
            )
        assert stop.value.code in (2, 5), capsys.readouterr().err
    assert not (tmp_path / "g").exists()


def test_guidance_that_is_no_number_is_refused(trained: Run) -> None:
    with pytest.raises(UsageError, match="finite number"):
        trained.sample(num=1, guidance_scale=float("nan"))
