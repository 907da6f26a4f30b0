"""Concepts in a pipeline: what it computes then, and what diffusers makes of our files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from families.custom_diffusion.pipelines import output, tiny_pipeline, trained
from families.custom_diffusion.tiny_bases import make_concept

from genzoo.core.errors import WeightsError
from genzoo.families.custom_diffusion.files.apply import apply_concept
from genzoo.families.custom_diffusion.files.base_weights import BaseWeights
from genzoo.families.custom_diffusion.files.write_layouts import write_concept


def test_applying_equals_the_trained_model_and_undoes(sd: Path, pipeline: Any) -> None:
    concept = make_concept(sd, 1, token="<new1>", phrase="<new1> cat")
    base_output, expected = output(pipeline.unet), trained(pipeline, concept)
    applied = apply_concept(concept, pipeline)
    assert torch.equal(output(pipeline.unet), expected)
    assert not torch.allclose(expected, base_output)
    token_id = pipeline.tokenizer.convert_tokens_to_ids("<new1>")
    assert torch.equal(
        pipeline.text_encoder.get_input_embeddings().weight[token_id], concept.tokens["<new1>"][0]
    )
    with pytest.raises(WeightsError, match="knows the word"):
        apply_concept(concept, pipeline, any_base=True)
    applied.undo()
    assert torch.equal(output(pipeline.unet), base_output)


def test_applying_what_has_no_effect_is_an_error(sd: Path, pipeline: Any) -> None:
    base_weights = dict(BaseWeights(sd))
    same = make_concept(sd, 1, token="<new1>", phrase="<new1> cat", size=0)
    with pytest.raises(WeightsError, match="did not change what the model computes"):
        apply_concept(same, pipeline)
    assert len(pipeline.tokenizer) == 49408
    assert all(torch.equal(pipeline.unet.state_dict()[name], value) for name, value in base_weights.items())


def test_applying_to_another_base_is_refused(sd: Path, pipeline: Any) -> None:
    concept = make_concept(sd, 1, token="<new1>", phrase="<new1> cat")
    with torch.no_grad():
        pipeline.unet.mid_block.attentions[0].transformer_blocks[0].attn2.to_k.weight.mul_(1.5)
    with pytest.raises(WeightsError, match="another base model"):
        apply_concept(concept, pipeline)


def diffusers_pipeline(sd: Path) -> Any:
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline

    parts = tiny_pipeline(sd, ("",))
    vae = AutoencoderKL(block_out_channels=(4,), norm_num_groups=2, latent_channels=4)
    return StableDiffusionPipeline(
        vae=vae,
        text_encoder=parts.text_encoder,
        tokenizer=parts.tokenizer,
        unet=parts.unet,
        scheduler=DDIMScheduler(steps_offset=1, clip_sample=False),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


@pytest.mark.parametrize("layout", ["lora", "kohya"])
def test_diffusers_loads_the_exported_lora_and_tokens(sd: Path, tmp_path: Path, layout: str) -> None:
    concept = make_concept(sd, 1, token="<new1>", phrase="<new1> cat")
    pipe = diffusers_pipeline(sd)
    base_output, expected = output(pipe.unet), trained(pipe, concept)
    folder = write_concept(concept, tmp_path / layout, layout=layout, base=BaseWeights(sd))
    name = "pytorch_lora_weights.safetensors" if layout == "lora" else "lora.safetensors"
    pipe.load_lora_weights(folder, weight_name=name)
    torch.testing.assert_close(output(pipe.unet), expected, atol=1e-5, rtol=0)
    assert (expected - base_output).abs().max() > 1e-3
    inversion = "<new1>.safetensors" if layout == "lora" else "new1.safetensors"
    pipe.load_textual_inversion(folder, weight_name=inversion, token="<new1>")
    token_id = pipe.tokenizer.convert_tokens_to_ids("<new1>")
    row = pipe.text_encoder.get_input_embeddings().weight[token_id]
    assert torch.equal(row, concept.tokens["<new1>"][0])


def test_diffusers_loads_the_exported_processors(sd: Path, tmp_path: Path) -> None:
    concept = make_concept(sd, 1, token="<new1>", phrase="<new1> cat")
    pipe = diffusers_pipeline(sd)
    expected = trained(pipe, concept)
    folder = write_concept(concept, tmp_path / "files", layout="diffusers")
    pipe.unet.load_attn_procs(folder, weight_name="pytorch_custom_diffusion_weights.bin", _pipeline=pipe)
    torch.testing.assert_close(output(pipe.unet), expected, atol=1e-5, rtol=0)
