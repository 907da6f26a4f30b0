"""Models by name, counting, listing, and the doctor."""

from pathlib import Path

import pytest
import torch

import genzoo
from genzoo.api.commands.doctor import examine
from genzoo.api.commands.stock_scan import build_lines
from genzoo.api.commands.stock_scan import describe as describe_stock
from genzoo.api.recipes.listing import KINDS, describe
from genzoo.core.errors import RecipeError, UsageError
from genzoo.core.registry import MODELS
from genzoo.kernels.scan import mamba_ssm_scan


def test_every_size_of_the_papers_is_listed() -> None:
    sizes = {f"{size}{patch}" for size in ("s", "b", "l", "xl") for patch in (2, 4, 8)}
    assert {f"dim_{size}" for size in sizes} | {f"dit_{size}" for size in sizes} <= set(genzoo.list_models())
    assert set(genzoo.list_models("dit*")) == {f"dit_{size}" for size in sizes} | {"dit"}


def test_create_model_takes_overrides_and_names_wrong_ones() -> None:
    model = genzoo.create_model("dit_s8", depth=1, num_classes=3)
    assert model.num_classes == 3
    assert len(model.blocks) == 1
    with pytest.raises(UsageError, match="did you mean 'dim_b4'"):
        genzoo.create_model("dim_b44")
    with pytest.raises(RecipeError) as caught:
        genzoo.create_model("dit_s8", dept=1, num_classes="many")
    assert "did you mean 'depth'" in str(caught.value)
    assert "model.num_classes: must be a whole number" in str(caught.value)
    with pytest.raises(RecipeError, match="give a number"):
        genzoo.create_model("dit_s8", num_classes="auto")


def test_models_registered_in_a_notebook_are_models() -> None:
    @MODELS.register("notebook_model")
    def build(width: int = 3) -> torch.nn.Module:
        return torch.nn.Linear(width, width)

    try:
        assert genzoo.create_model("notebook_model", width=5).in_features == 5
        assert "notebook_model" in genzoo.list_models("note*")
    finally:
        del MODELS._entries["notebook_model"]


@pytest.mark.parametrize(
    ("name", "image_size", "params", "gflops"),
    [
        ("dim_b4", 256, "134.37", "14.71"),
        ("dim_xl2", 2048, None, "18798.04"),
        ("dit_xl2", 512, None, "1371.08"),
    ],
)
def test_the_papers_numbers_are_counted_without_weights(
    name: str, image_size: int, params: str | None, gflops: str
) -> None:
    found = genzoo.count(name, image_size=image_size, paper=True)
    assert f"{found['gflops']:.2f}" == gflops
    assert params is None or f"{found['params']:.2f}" == params
    honest = genzoo.count(name, image_size=image_size)
    assert honest["params"] > found["params"]


def test_a_model_in_hand_is_counted_too() -> None:
    model = genzoo.create_model("dit_s8", depth=2)
    assert genzoo.count(model)["num_params"] == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_everything_listed_has_a_line_about_it(kind: str) -> None:
    for name, text in describe(kind):
        assert text, name


def test_the_doctor_finds_this_installation_healthy() -> None:
    findings = {finding.topic: finding for finding in examine()}
    assert not [finding for finding in findings.values() if finding.level == "broken"]
    assert {
        "torch",
        "cpu",
        "scan torch",
        "scan triton",
        "C compiler",
        "configs",
        "recipes",
    } <= findings.keys()
    assert findings["scan torch"].level == "ok"


def test_the_doctor_says_how_mamba_ssm_is_built(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    nvcc = tmp_path / "bin" / "nvcc"
    nvcc.parent.mkdir()
    nvcc.write_text("#!/bin/sh\necho 'Cuda compilation tools, release 13.0, V13.0.88'\n")
    nvcc.chmod(0o755)
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    monkeypatch.setattr(torch, "__version__", "2.14.1+cu130")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    told = [finding.text for finding in examine() if finding.topic == "mamba-ssm"]
    assert told[1:] == [
        "to build it for torch 2.14.1 and CUDA 13.0 with nvcc 13.0:",
        "pip install ninja packaging setuptools wheel",
        f"CUDA_HOME={tmp_path} MAMBA_KEEP_CUDA_BUILD=TRUE pip install --no-build-isolation "
        "'mamba-ssm>=2.2.4' 'torch==2.14.1'",
    ]


@pytest.mark.parametrize(
    ("cuda", "nvcc", "words"),
    [
        (None, "13.0", "torch 2.14.1 here is built for the CPU"),
        ("13.0", None, "no nvcc was found: install NVIDIA's toolkit 13.0"),
        ("13.0", "12.8", "nvcc 12.8 in /cuda is of another major version"),
    ],
)
def test_what_a_build_lacks_is_named(cuda: str | None, nvcc: str | None, words: str) -> None:
    lines = build_lines("2.14.1+cpu", cuda, None if nvcc is None else Path("/cuda"), nvcc)
    assert len(lines) == 1
    assert words in lines[0]


def test_an_installed_mamba_ssm_that_cannot_be_used_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mamba_ssm_scan, "unavailable_reason", lambda: "no scan in it")
    level, lines = describe_stock("2.3.2")
    assert (level, lines[0]) == ("note", "2.3.2, cannot be used: no scan in it")
    monkeypatch.setattr(mamba_ssm_scan, "unavailable_reason", lambda: None)
    assert describe_stock("2.3.2") == ("ok", ["2.3.2"])
