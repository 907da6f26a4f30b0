"""The autoencoder codec against diffusers' own, on a tiny random model; and the errors for missing files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file

from genzoo.core.errors import CheckpointError, ShapeError, UsageError, WeightsError
from genzoo.core.registry import CODECS
from genzoo.core.seeds import SampleStreams
from genzoo.pretrained.codecs import AutoencoderKLCodec, IdentityCodec
from genzoo.pretrained.hub import is_hub_id, resolve

WEIGHTS = "diffusion_pytorch_model.safetensors"


def tiny_vae() -> AutoencoderKL:
    torch.manual_seed(0)
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 12), norm_num_groups=4, latent_channels=3, layers_per_block=1,
    )  # fmt: skip
    return vae.eval()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny_vae().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def streams(*positions: int) -> SampleStreams:
    return SampleStreams.from_seeds(0, "noise", positions=positions)


def pixels(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(1)) * 2 - 1


def edit_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    state = load_file(folder / WEIGHTS)
    change(state)
    save_file(state, folder / WEIGHTS)


def test_codec_equals_the_diffusers_model(folder: Path) -> None:
    codec, vae, x = AutoencoderKLCodec(str(folder)), tiny_vae(), pixels(2, 3, 8, 6)
    moments = codec.moments(x)
    assert moments.shape == (2, 6, 4, 3)
    with torch.no_grad():
        assert torch.allclose(moments, vae.encode(x).latent_dist.parameters, atol=1e-6)
        latents = codec.encode(x, streams(0, 1))
        assert torch.allclose(codec.decode(latents), vae.decode(latents / 0.18215).sample, atol=1e-5)


def test_latents_are_scaled_draws_around_the_mean(folder: Path) -> None:
    codec = AutoencoderKLCodec(str(folder), scaling_factor=0.5)
    mean, log_variance = torch.full((1, 3, 40, 50), 2.0), torch.full((1, 3, 40, 50), -2.0)
    latents = codec.sample_moments(torch.cat([mean, log_variance], 1), streams(0))
    # 6,000 draws: standard errors 0.0024 and 0.0017
    assert latents.mean().item() == pytest.approx(1.0, abs=0.012)
    assert latents.std().item() == pytest.approx(0.5 * torch.tensor(-1.0).exp().item(), abs=0.01)


def test_extreme_log_variances_are_bounded(folder: Path) -> None:
    codec = AutoencoderKLCodec(str(folder))
    latents = codec.sample_moments(torch.full((1, 6, 2, 2), 500.0), streams(0))
    assert torch.isfinite(latents).all()


def test_scaling_factor_comes_from_the_config_unless_given(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "scaling_factor": 0.7, "shift_factor": 0.1}))
    codec = AutoencoderKLCodec(str(folder))
    latents = codec.sample_moments(
        torch.cat([torch.ones(1, 3, 2, 2), torch.full((1, 3, 2, 2), -60.0)], 1), streams(0)
    )
    assert torch.allclose(latents, torch.tensor(0.63), atol=1e-5)
    assert AutoencoderKLCodec(str(folder), scaling_factor=0.2).scaling_factor == 0.2


def test_slices_and_batches_give_the_same_latents(folder: Path) -> None:
    x = pixels(5, 3, 8, 6)
    whole = AutoencoderKLCodec(str(folder), slice_size=8).encode(x, streams(*range(5)))
    sliced = AutoencoderKLCodec(str(folder), slice_size=2).encode(x, streams(*range(5)))
    single = torch.cat([AutoencoderKLCodec(str(folder)).encode(x[i : i + 1], streams(i)) for i in range(5)])
    assert torch.allclose(whole, sliced, atol=1e-6)
    assert torch.allclose(whole, single, atol=1e-6)


def test_videos_are_encoded_frame_by_frame(folder: Path) -> None:
    codec, x = AutoencoderKLCodec(str(folder)), pixels(2, 4, 3, 8, 6)
    moments = codec.moments(x)
    assert moments.shape == (2, 4, 6, 4, 3)
    assert torch.allclose(moments[1, 2], codec.moments(x[1, 2:3])[0], atol=1e-6)
    assert codec.latent_shape((4, 3, 8, 6)) == (4, 3, 4, 3)
    assert codec.decode(codec.encode(x, streams(0, 1))).shape == x.shape


def test_vae_subfolder_of_a_pipeline_is_found(tmp_path: Path) -> None:
    tiny_vae().save_pretrained(tmp_path / "pipeline" / "vae")
    found = AutoencoderKLCodec(str(tmp_path / "pipeline"))
    named = AutoencoderKLCodec(str(tmp_path / "pipeline"), subfolder="vae")
    assert found.fingerprint == named.fingerprint


def test_pickled_weights_with_old_attention_names_load(folder: Path) -> None:
    state = load_file(folder / WEIGHTS)
    names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    for new, old in names.items():
        state = {key.replace(f".{new}.", f".{old}."): value for key, value in state.items()}
    assert any(".query." in key for key in state)
    expected = AutoencoderKLCodec(str(folder)).moments(pixels(1, 3, 4, 4))
    (folder / WEIGHTS).unlink()
    torch.save(state, folder / "diffusion_pytorch_model.bin")
    assert torch.equal(AutoencoderKLCodec(str(folder)).moments(pixels(1, 3, 4, 4)), expected)


def test_fingerprint_follows_the_weights_and_not_the_scale(folder: Path) -> None:
    before = AutoencoderKLCodec(str(folder)).fingerprint
    assert AutoencoderKLCodec(str(folder), scaling_factor=0.9).fingerprint == before
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "scaling_factor": 0.7}))
    assert AutoencoderKLCodec(str(folder)).fingerprint == before
    edit_weights(folder, lambda state: state["encoder.conv_in.bias"].add_(1e-3))
    assert AutoencoderKLCodec(str(folder)).fingerprint != before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("encoder.conv_in.bias"), "missing"),
        (lambda state: state.update(extra=torch.ones(2)), "unexpected"),
        (lambda state: state.update({"encoder.conv_in.bias": torch.ones(3)}), "shape"),
        (lambda state: state["encoder.conv_in.bias"].fill_(float("nan")), "not finite"),
    ],
)
def test_unfit_weights_are_refused(folder: Path, change: Callable[..., Any], message: str) -> None:
    edit_weights(folder, change)
    with pytest.raises(CheckpointError, match=message):
        AutoencoderKLCodec(str(folder))


def test_other_models_and_broken_configs_are_refused(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({"_class_name": "UNet2DConditionModel"}))
    with pytest.raises(CheckpointError, match="UNet2DConditionModel"):
        AutoencoderKLCodec(str(folder))
    (folder / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="JSON"):
        AutoencoderKLCodec(str(folder))
    (folder / "config.json").write_text(json.dumps({"block_out_channels": "many"}))
    with pytest.raises(CheckpointError):
        AutoencoderKLCodec(str(folder))


def test_pixels_that_cannot_be_encoded_are_refused(folder: Path) -> None:
    codec = AutoencoderKLCodec(str(folder))
    for shape in [(1, 8, 8), (3, 7, 8), (3, 8, 5)]:
        with pytest.raises(ShapeError):
            codec.latent_shape(shape)


def test_missing_weights_are_named_with_their_place(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    with pytest.raises(WeightsError) as caught:
        AutoencoderKLCodec(str(folder))
    assert WEIGHTS in str(caught.value)
    assert str(folder) in str(caught.value)


def test_offline_error_says_what_to_fetch_and_where_to_put_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from huggingface_hub.errors import LocalEntryNotFoundError

    def offline(*args: Any, **options: Any) -> str:
        raise LocalEntryNotFoundError("outgoing traffic has been disabled")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", offline)
    with pytest.raises(WeightsError) as caught:
        AutoencoderKLCodec("someone/an-autoencoder", subfolder="vae")
    message = str(caught.value)
    assert "https://huggingface.co/someone/an-autoencoder/blob/main/vae/config.json" in message
    assert (
        "hf download someone/an-autoencoder --include '*config.json' '*diffusion_pytorch_model.safetensors' "
        "--local-dir an-autoencoder"
    ) in message
    assert len(message.splitlines()) <= 6


def test_downloads_ask_for_the_file_in_its_subfolder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = []
    monkeypatch.setattr(
        "huggingface_hub.hf_hub_download", lambda *a, **k: asked.append((a, k)) or tmp_path / "file"
    )
    assert resolve("owner/name", "config.json", subfolder="vae", revision="v2") == tmp_path / "file"
    assert [place for place, _ in asked] == [("owner/name", "vae/config.json")]
    assert asked[0][1]["revision"] == "v2"


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "a/../../b"])
def test_names_cannot_leave_the_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError):
        resolve(tmp_path, name)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("owner/name", True),
        ("name", True),
        ("/abs/path", False),
        ("./here", False),
        ("a/b/c", False),
        ("~/x", False),
    ],
)
def test_paths_are_told_from_hub_ids(text: str, expected: bool) -> None:
    assert is_hub_id(text) is expected


def test_missing_folder_is_named() -> None:
    with pytest.raises(WeightsError, match="no/such/folder"):
        AutoencoderKLCodec("no/such/folder")


def test_float16_keeps_an_autoencoder_that_overflows_in_float32(folder: Path) -> None:
    codec = AutoencoderKLCodec(str(folder))
    codec.to("cpu", torch.float16)
    assert next(codec.vae.parameters()).dtype == torch.float32
    codec.to("cpu", torch.bfloat16)
    assert next(codec.vae.parameters()).dtype == torch.bfloat16
    assert codec.moments(pixels(1, 3, 4, 4)).dtype == torch.float32


def test_identity_scales_and_returns(tmp_path: Path) -> None:
    codec, x = IdentityCodec(scale=2.0), pixels(2, 1, 4, 4)
    latents = codec.encode(x, streams(0, 1))
    assert torch.equal(latents, 2 * x)
    assert torch.equal(codec.sample_moments(codec.moments(x), streams(0, 1)), latents)
    assert torch.equal(codec.decode(latents), x)
    with pytest.raises(UsageError):
        IdentityCodec(scale=0.0)


def test_registered_codecs_resolve() -> None:
    import genzoo.pretrained  # noqa: F401

    assert CODECS.get("identity") is IdentityCodec
    assert CODECS.get("autoencoder_kl") is AutoencoderKLCodec


def test_a_bf16_autoencoder_is_near_and_known_as_another_one(folder: Path) -> None:
    plain, half = AutoencoderKLCodec(str(folder)), AutoencoderKLCodec(str(folder), precision="bf16")
    for dtype in (None, torch.float32, torch.float16):
        half.to("cpu", dtype)
        assert next(half.vae.parameters()).dtype == torch.bfloat16
    x = pixels(2, 3, 8, 6)
    moments = half.moments(x)
    assert moments.dtype == torch.float32
    assert not torch.equal(moments, plain.moments(x))
    torch.testing.assert_close(moments, plain.moments(x), rtol=0.05, atol=0.05)
    decoded = [codec.decode(moments[:, :3]) for codec in (half, plain)]
    torch.testing.assert_close(decoded[0], decoded[1], rtol=0.05, atol=0.05)
    assert half.fingerprint == f"{plain.fingerprint}-bf16"
    with pytest.raises(UsageError, match="the codec's precision is 'fp8'"):
        AutoencoderKLCodec(str(folder), precision="fp8")  # type: ignore[arg-type]


def test_channels_last_changes_rounding_alone(folder: Path) -> None:
    plain, last = AutoencoderKLCodec(str(folder)), AutoencoderKLCodec(str(folder), channels_last=True)
    weight = last.vae.encoder.conv_in.weight
    assert weight.is_contiguous(memory_format=torch.channels_last)
    x = pixels(2, 3, 8, 6)
    torch.testing.assert_close(last.moments(x), plain.moments(x), rtol=1e-5, atol=1e-5)
    assert last.fingerprint == plain.fingerprint
