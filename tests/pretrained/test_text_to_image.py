"""Text-to-image parts against diffusers' pipelines, CLIP's vocabulary, and the packed form of a model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, StableDiffusionXLPipeline
from families.custom_diffusion.tiny_bases import build_base
from safetensors.torch import load_file, save_file

from genzoo.core.errors import CheckpointError, UsageError, WeightsError
from genzoo.pretrained.clip_vocabulary import clip_tokenizer
from genzoo.pretrained.codecs import AutoencoderKLCodec
from genzoo.pretrained.packing import is_packed, pack, unpack, used_tokens
from genzoo.pretrained.text_to_image import TextToImageParts, load_parts, predict
from genzoo.pretrained.text_to_image_model import TextToImageModel
from genzoo.pretrained.write_text_to_image import write_folder

PROMPTS = ["a photo of a red apple", "two  CATS, and a dog's bone", ""]
SCHEDULER = {
    "beta_schedule": "linear",
    "beta_start": 1e-4,
    "beta_end": 2e-2,
    "prediction_type": "v_prediction",
}


def write_vae(folder: Path) -> None:
    torch.manual_seed(5)
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(4, 8), norm_num_groups=4, latent_channels=4, layers_per_block=1,
        scaling_factor=0.5,
    )  # fmt: skip
    vae.save_pretrained(folder / "vae")


def complete(folder: Path, kind: str) -> Path:
    build_base(folder, kind)
    write_vae(folder)
    (folder / "scheduler").mkdir(exist_ok=True)
    (folder / "scheduler/scheduler_config.json").write_text(json.dumps(SCHEDULER))
    index = json.loads((folder / "model_index.json").read_text()) | {"vae": ["diffusers", "AutoencoderKL"]}
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    folders = {kind: complete(tmp_path_factory.mktemp(kind), kind) for kind in ("sd", "sdxl")}
    return folders.__getitem__


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> TextToImageParts:
    """A model of our own factory with an autoencoder."""
    folder = tmp_path_factory.mktemp("small")
    write_vae(folder)
    torch.manual_seed(1)
    model = TextToImageModel(
        block_out_channels=(8, 16), num_heads=2, norm_num_groups=4, text_width=12, text_heads=2, text_layers=1
    )
    parts = model.parts(AutoencoderKLCodec(str(folder)), SCHEDULER)
    parts.freeze()
    return parts


@pytest.mark.parametrize("text", [*PROMPTS, "a 3d emoji of a t rex", "naïve café 日本 №12!", "x" * 300])
def test_token_ids_equal_those_of_open_clip(text: str) -> None:
    theirs = open_clip.SimpleTokenizer()(text)[0]
    ours = clip_tokenizer()(text, padding="max_length", truncation=True, max_length=77).input_ids
    used = int((theirs == 49407).nonzero()[0]) + 1
    assert ours[:used] == theirs[:used].tolist()
    assert set(ours[used:]) <= {49407}


def test_text_features_equal_those_of_diffusers_for_one_encoder(bases: Callable[[str], Path]) -> None:
    parts = load_parts(bases("sd"))
    pipeline = StableDiffusionPipeline(
        parts.vae.vae, parts.text_encoders[0], parts.tokenizers[0], parts.unet, None, None, None,
        requires_safety_checker=False,
    )  # fmt: skip
    theirs, _ = pipeline.encode_prompt(PROMPTS, "cpu", 1, False)
    torch.testing.assert_close(parts.encode_prompts(PROMPTS).hidden, theirs, rtol=0, atol=0)


def test_text_features_and_size_conditions_equal_those_of_diffusers_for_sdxl(
    bases: Callable[[str], Path],
) -> None:
    parts = load_parts(bases("sdxl"))
    assert parts.is_sdxl
    pipeline = StableDiffusionXLPipeline(
        parts.vae.vae, *parts.text_encoders, *parts.tokenizers, parts.unet, None, add_watermarker=False
    )
    hidden, empty, pooled, empty_pooled = pipeline.encode_prompt(PROMPTS, device="cpu")
    text = parts.encode_prompts(PROMPTS)
    torch.testing.assert_close(text.hidden, hidden, rtol=0, atol=0)
    torch.testing.assert_close(text.pooled, pooled, rtol=0, atol=0)
    negative = parts.encode_negative(None)
    assert not negative.hidden.any()
    torch.testing.assert_close(negative.expand(3).hidden, empty, rtol=0, atol=0)
    torch.testing.assert_close(negative.expand(3).pooled, empty_pooled, rtol=0, atol=0)
    x_t, timesteps = torch.randn(3, 4, 8, 8), torch.tensor([7, 300, 999])
    time_ids = torch.tensor([[16.0, 16, 0, 0, 16, 16]]).expand(3, -1)
    added = {"text_embeds": pooled, "time_ids": time_ids}
    theirs = parts.unet(x_t, timesteps, encoder_hidden_states=hidden, added_cond_kwargs=added).sample
    torch.testing.assert_close(parts.predict(x_t, timesteps, text), theirs, rtol=0, atol=0)


def test_prompts_are_differentiable_where_something_is_trained(small: TextToImageParts) -> None:
    table = small.text_encoders[0].get_input_embeddings().weight.requires_grad_(True)
    small.encode_prompts(["apple"]).hidden.sum().backward()
    table.requires_grad_(False)
    touched = table.grad.abs().sum(1).nonzero().flatten().tolist()
    table.grad = None
    assert touched == sorted(set(small.tokenizers[0]("apple").input_ids))


def test_missing_files_are_named(tmp_path: Path, bases: Callable[[str], Path]) -> None:
    with pytest.raises(WeightsError, match=r"model_index\.json"):
        load_parts(tmp_path)
    with pytest.raises(WeightsError, match="no folder"):
        load_parts(tmp_path / "a" / "b" / "c")


def test_a_hub_id_without_a_network_says_what_to_fetch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsError, match=r"model_index\.json") as caught:
        load_parts("nobody/no-such-model")
    assert "hf download nobody/no-such-model" in str(caught.value.fix)


@pytest.mark.parametrize("damage", ["missing", "width"])
def test_weights_that_do_not_fit_are_refused(
    damage: str, tmp_path: Path, bases: Callable[[str], Path]
) -> None:
    import shutil

    folder = Path(shutil.copytree(bases("sd"), tmp_path / "copy"))
    unet = folder / "unet/diffusion_pytorch_model.safetensors"
    if damage == "missing":
        state = load_file(unet)
        state.pop("conv_in.weight")
        save_file(state, unet, metadata={"format": "pt"})
    else:
        shutil.rmtree(folder / "text_encoder")
        shutil.copytree(bases("sdxl") / "text_encoder_2", folder / "text_encoder")
    with pytest.raises((CheckpointError, WeightsError)):
        load_parts(folder)


def test_diffusers_loads_what_is_written_and_predicts_alike(small: TextToImageParts, tmp_path: Path) -> None:
    folder = write_folder(small, tmp_path / "model")
    pipeline = StableDiffusionPipeline.from_pretrained(str(folder))
    assert pipeline.scheduler.config.prediction_type == "v_prediction"
    assert pipeline.vae.config.scaling_factor == 0.5
    hidden, _ = pipeline.encode_prompt(["an apple"], "cpu", 1, False)
    x_t, timesteps = torch.randn(1, 4, 8, 8), torch.tensor([500])
    theirs = pipeline.unet(x_t, timesteps, encoder_hidden_states=hidden).sample
    ours = small.predict(x_t, timesteps, small.encode_prompts(["an apple"]))
    torch.testing.assert_close(theirs, ours)
    picture = pipeline("an apple", num_inference_steps=2, output_type="np").images
    assert picture.shape == (1, 16, 16, 3)


def test_a_packed_model_keeps_the_words_it_was_trained_with(small: TextToImageParts, tmp_path: Path) -> None:
    folder = write_folder(small, tmp_path / "model", half=True)
    ids = used_tokens(small.tokenizers[0], ["a red apple", "a pear"])
    packed = pack(folder, tmp_path / "packed", ids)
    assert is_packed(packed)
    assert not is_packed(folder)
    assert sum(path.stat().st_size for path in packed.rglob("*")) < 0.2 * sum(
        path.stat().st_size for path in folder.rglob("*")
    )
    again = load_parts(unpack(packed, tmp_path / "again"))
    before = load_parts(folder)
    known, unknown = ["a red pear"], ["violins"]
    assert torch.equal(again.encode_prompts(known).hidden, before.encode_prompts(known).hidden)
    assert not torch.equal(again.encode_prompts(unknown).hidden, before.encode_prompts(unknown).hidden)
    table = again.text_encoders[0].get_input_embeddings().weight
    assert torch.equal(table[0], table[-3])
    torch.testing.assert_close(table[0], table[ids].mean(0), rtol=0, atol=1e-3)
    x_t, timesteps = torch.randn(1, 4, 8, 8), torch.tensor([500])
    text = before.encode_prompts(known)
    assert torch.equal(predict(again.unet, x_t, timesteps, text), before.predict(x_t, timesteps, text))


def test_only_models_with_one_encoder_are_written(bases: Callable[[str], Path], tmp_path: Path) -> None:
    parts: Any = load_parts(bases("sdxl"))
    with pytest.raises(UsageError, match="one text encoder"):
        write_folder(parts, tmp_path / "out")


def test_plain_attention_has_the_weights_and_the_output_of_the_fused_kernel() -> None:
    sizes: dict[str, Any] = {"block_out_channels": (8, 16), "num_heads": 2, "norm_num_groups": 4}
    sizes |= {"text_width": 12, "text_heads": 2, "text_layers": 1}
    torch.manual_seed(3)
    fused = TextToImageModel(**sizes)
    plain = TextToImageModel(**sizes, attention="plain")
    plain.load_state_dict(fused.state_dict())
    x_t, timesteps, ids = torch.randn(2, 4, 8, 8), torch.tensor([3, 700]), fused.tokenize(PROMPTS[:2])
    torch.testing.assert_close(plain(x_t, timesteps, ids), fused(x_t, timesteps, ids), rtol=1e-5, atol=1e-5)
    assert {type(one).__name__ for one in plain.unet.attn_processors.values()} == {"AttnProcessor"}
    with pytest.raises(UsageError, match="attention is 'flash'"):
        TextToImageModel(**sizes, attention="flash")  # type: ignore[arg-type]
