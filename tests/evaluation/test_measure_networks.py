"""Feature networks of the newer measures, on small files of the published layouts with random weights."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from genzoo.core.errors import CheckpointError, DataError, WeightsError
from genzoo.evaluation.features import build_network
from genzoo.evaluation.networks.dinov2 import load_dinov2, resized_positions
from genzoo.evaluation.networks.vjepa import ENCODER, PROBE, Encoder, Pooler

WIDTH, HIDDEN, DEPTH, SIDE = 32, 48, 2, 32


def random_state(module: torch.nn.Module, seed: int = 0) -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    return {
        name: 0.2 * torch.randn(value.shape, generator=random) for name, value in module.state_dict().items()
    }


def picture(height: int = 30, width: int = 40) -> Image.Image:
    levels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(levels)


@pytest.fixture
def dinov2_file(tmp_path: Path) -> Path:
    """Names and shapes of DINOv2's file, two blocks of width 64 and positions for 5 x 5 patches."""
    timm = pytest.importorskip("timm.models.vision_transformer")
    module = timm.VisionTransformer(
        img_size=70, patch_size=14, embed_dim=64, depth=2, num_heads=1, init_values=1.0, num_classes=0
    )
    state = random_state(module) | {"mask_token": torch.zeros(1, 64)}
    torch.save(state, tmp_path / "dinov2_vitl14_pretrain.pth")
    return tmp_path / "dinov2_vitl14_pretrain.pth"


def test_dinov2_gives_the_normed_class_token_of_a_stretched_picture(dinov2_file: Path) -> None:
    network = build_network("dinov2-vitl14", weights=dinov2_file)
    batch = network.prepare(picture())[None]
    assert batch.shape == (1, 3, 224, 224)
    found = network.extract(batch)["pool"]
    module = load_dinov2(dinov2_file)
    torch.testing.assert_close(found, module.forward_features(batch)[:, 0])
    assert (network.label, network.own) == ("dinov2", ("fdd",))


def test_positions_are_resized_from_the_side_and_a_tenth() -> None:
    stored = torch.randn(1, 1 + 25, 6, generator=torch.Generator().manual_seed(0))
    small = resized_positions(stored, 3)
    assert small.shape == (1, 1 + 9, 6)
    assert torch.equal(small[:, 0], stored[:, 0])
    assert torch.equal(resized_positions(stored, 5), stored)
    grid = stored[:, 1:].reshape(1, 5, 5, 6).permute(0, 3, 1, 2)
    plain = torch.nn.functional.interpolate(grid, size=(3, 3), mode="bicubic").permute(0, 2, 3, 1)
    assert 0 < (small[:, 1:] - plain.reshape(1, 9, 6)).abs().max() < 0.5  # the tenth is felt


def test_another_file_is_no_dinov2(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(WeightsError, match="is not a DINOv2"):
        build_network("dinov2-vitl14", weights=tmp_path / "other.safetensors")


def test_clip_at_336_takes_the_central_square(tmp_path: Path) -> None:
    open_clip = pytest.importorskip("open_clip")
    config = {
        "embed_dim": 16,
        "quick_gelu": True,
        "vision_cfg": {"image_size": 28, "layers": 1, "width": 64, "patch_size": 14},
        "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 1},
    }
    torch.manual_seed(0)
    module = open_clip.CLIP(**config)
    save_file(
        {k: v.clone() for k, v in module.state_dict().items()}, tmp_path / "open_clip_model.safetensors"
    )
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    network = build_network("clip-vit-l14-336", weights=tmp_path)
    whole = picture(30, 40)
    centre = whole.crop((5, 0, 35, 30))
    batch = network.prepare(whole)[None]
    assert torch.equal(batch[0], network.prepare(centre))
    with torch.inference_mode():
        torch.testing.assert_close(network.extract(batch)["pool"], module.eval().encode_image(batch))
    assert network.own == ("cmmd",)


@pytest.fixture
def vjepa_folder(tmp_path: Path) -> Path:
    """Both files as they are published, two blocks of width 32 for 32 x 32 pixels."""
    encoder = random_state(Encoder(WIDTH, HIDDEN, DEPTH, tokens=8 * 2 * 2))
    wrapped = {f"module.backbone.{name}": value for name, value in encoder.items()}
    other = {name: torch.zeros_like(value) for name, value in wrapped.items()}
    torch.save({"encoder": other, "target_encoder": wrapped, "epoch": 300}, tmp_path / ENCODER.file)
    pooler = {f"module.pooler.{name}": v for name, v in random_state(Pooler(WIDTH, HIDDEN), 1).items()}
    head = {"module.linear.weight": torch.zeros(5, WIDTH), "module.linear.bias": torch.zeros(5)}
    torch.save({"classifier": pooler | head, "epoch": 20}, tmp_path / PROBE.file)
    return tmp_path


def test_vjepa_gives_one_row_a_clip_and_sees_time(vjepa_folder: Path) -> None:
    network = build_network("vjepa-vith16-ssv2", weights=vjepa_folder)
    random = torch.Generator().manual_seed(0)
    clips = torch.randint(0, 256, (2, 3, 16, 20, 25), generator=random, dtype=torch.uint8)
    found = network.extract(clips)["pool"]
    assert found.shape == (2, WIDTH)
    torch.testing.assert_close(network.extract(clips[:1])["pool"], found[:1])
    assert not torch.allclose(network.extract(clips.flip(2))["pool"], found)
    assert network.is_video
    with pytest.raises(DataError, match="clips of 16 frames, these have 5"):
        network.extract(clips[:, :, :5])


def test_vjepa_is_its_published_equations(vjepa_folder: Path) -> None:
    """One block written out by hand, on the file's own numbers."""
    state = torch.load(vjepa_folder / ENCODER.file)["target_encoder"]
    weights = {name.removeprefix("module.backbone."): value for name, value in state.items()}
    module = Encoder(WIDTH, HIDDEN, DEPTH, tokens=32)
    module.load_state_dict(weights)
    tokens = torch.randn(1, 5, WIDTH, generator=torch.Generator().manual_seed(0))
    block = {name.removeprefix("blocks.0."): v for name, v in weights.items() if name.startswith("blocks.0.")}
    norm = lambda x, n: torch.nn.functional.layer_norm(  # noqa: E731
        x, (WIDTH,), block[f"norm{n}.weight"], block[f"norm{n}.bias"], 1e-6
    )
    qkv = norm(tokens, 1) @ block["attn.qkv.weight"].T + block["attn.qkv.bias"]
    q, k, v = qkv.reshape(1, 5, 3, 16, WIDTH // 16).permute(2, 0, 3, 1, 4)
    mixed = ((q @ k.transpose(-2, -1)) * (WIDTH // 16) ** -0.5).softmax(-1) @ v
    mixed = mixed.transpose(1, 2).reshape(1, 5, WIDTH)
    expected = tokens + mixed @ block["attn.proj.weight"].T + block["attn.proj.bias"]
    hidden = torch.nn.functional.gelu(norm(expected, 2) @ block["mlp.fc1.weight"].T + block["mlp.fc1.bias"])
    expected = expected + hidden @ block["mlp.fc2.weight"].T + block["mlp.fc2.bias"]
    torch.testing.assert_close(module.blocks[0](tokens), expected, rtol=1e-4, atol=1e-5)


def test_files_of_vjepa_are_told_apart(vjepa_folder: Path) -> None:
    torch.save({"target_encoder": {"module.x": torch.zeros(2)}}, vjepa_folder / ENCODER.file)
    with pytest.raises(WeightsError, match="is no V-JEPA encoder"):
        build_network("vjepa-vith16-ssv2", weights=vjepa_folder)
    (vjepa_folder / ENCODER.file).write_bytes(b"text")
    with pytest.raises(CheckpointError):
        build_network("vjepa-vith16-ssv2", weights=vjepa_folder)


@pytest.mark.parametrize("name", ["dinov2-vitl14", "clip-vit-l14-336", "vjepa-vith16-ssv2"])
def test_missing_files_say_where_they_come_from(name: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("GENZOO_WEIGHTS", str(tmp_path))
    with pytest.raises(WeightsError, match="https://"):
        build_network(name)
