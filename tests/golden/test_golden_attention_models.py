"""Keys and values of transformers beside the UNet: rows, edits and outputs against recorded ones."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from golden.manifest import golden_cases, golden_tensors
from torch import Tensor
from torch.nn.functional import linear

from genzoo.core.errors import UsageError
from genzoo.families.custom_diffusion.edit.attention_models import Text, projections, text_rows
from genzoo.families.custom_diffusion.edit.models import edit_model, lora_tensors, merge_models
from genzoo.families.custom_diffusion.edit.solve import edit_weights

diffusers = pytest.importorskip("diffusers")
SET, FILE = "concept_editing", "cross_attention_models"
Case, Tensors = dict[str, Any], dict[str, Tensor]
CASES = golden_cases(SET, FILE)
MODELS = [case for case in CASES if case["kind"] == "dit_kv"]


def built(case: Case, data: Tensors) -> Any:
    config = {key: tuple(v) if isinstance(v, list) else v for key, v in case["config"].items()}
    model = getattr(diffusers, case["cls"])(**config).double().eval()
    state = {
        key.removeprefix("model."): value.double() for key, value in data.items() if key.startswith("model.")
    }
    model.load_state_dict(state)
    return model


def text_of(case: Case, data: Tensors, which: str) -> Text:
    if f"text_{which}" in data:
        return Text((data[f"text_{which}"],))
    masks = tuple(torch.tensor(case[key]) for key in ("text_mask", "text_mask_t5"))
    return Text((data[f"text_{which}0"], data[f"text_{which}1"]), masks)


def called(case: Case, model: Any, data: Tensors, which: str) -> Tensor:
    """The model's output for the recorded latents and a text, with the arguments that its class needs."""
    x, text = data["latents0"], text_of(case, data, which)
    time = torch.tensor([case["timestep"]], dtype=torch.float64 if case["timestep"] < 1 else torch.long)
    return CALLS[case["cls"]](model, x, time, text)


def plain(model: Any, x: Tensor, time: Tensor, text: Text, **more: Any) -> Tensor:
    output: Tensor = model(x, encoder_hidden_states=text.features[0][None], timestep=time, **more)[0]
    return output


def hunyuan(model: Any, x: Tensor, time: Tensor, text: Text) -> Tensor:
    from diffusers.models.embeddings import get_2d_rotary_pos_embed

    rope = get_2d_rotary_pos_embed(8, ((0, 0), (4, 4)), (4, 4), output_type="pt")
    output: Tensor = model(
        x,
        time.double(),
        encoder_hidden_states=text.features[0][None],
        text_embedding_mask=text.masks[0][None],
        encoder_hidden_states_t5=text.features[1][None],
        text_embedding_mask_t5=text.masks[1][None],
        image_rotary_emb=rope,
        return_dict=False,
    )[0]
    return output


def lumina(model: Any, x: Tensor, time: Tensor, text: Text) -> Tensor:
    from diffusers.models.embeddings import get_2d_rotary_pos_embed_lumina

    output: Tensor = model(
        x,
        time,
        text.features[0][None],
        torch.ones(1, len(text.features[0]), dtype=torch.long),
        get_2d_rotary_pos_embed_lumina(8, 384, 384),
        {},
        return_dict=False,
    )[0]
    return output


CALLS: dict[str, Callable[..., Tensor]] = {
    "PixArtTransformer2DModel": functools.partial(
        plain, added_cond_kwargs={"resolution": None, "aspect_ratio": None}, return_dict=False
    ),
    "SanaTransformer2DModel": functools.partial(plain, return_dict=False),
    "HunyuanDiT2DModel": hunyuan,
    "LuminaNextDiT2DModel": lumina,
    "LatteTransformer3DModel": functools.partial(plain, enable_temporal_attentions=True, return_dict=False),
    "AllegroTransformer3DModel": functools.partial(plain, image_rotary_emb=None, return_dict=False),
    "WanTransformer3DModel": functools.partial(plain, return_dict=False),
    "LTXVideoTransformer3DModel": functools.partial(
        plain, encoder_attention_mask=None, num_frames=2, height=2, width=2, return_dict=False
    ),
    "UNet2DConditionModel": functools.partial(plain, return_dict=False),
}


def close(ours: Tensor, theirs: Tensor, tolerance: float, what: str) -> None:
    gap = (ours - theirs).abs().max().item()
    assert gap <= tolerance, f"{what}: off by {gap:.3g}"


@pytest.mark.parametrize("case", MODELS, ids=lambda case: case["name"])
def test_rows_are_those_that_enter_the_projections(case: Case) -> None:
    data = golden_tensors(SET, FILE, case["name"])
    model = built(case, data)
    assert sorted(projections(model)) == sorted(case["layers"])
    # HunyuanDiT rounds to float32 inside
    tolerance = 1e-6 if case["cls"] == "HunyuanDiT2DModel" else 1e-9
    for which in ("edit", "guide", "keep"):
        rows = text_rows(model, text_of(case, data, which))
        for layer in case["stored_layers"]:
            recorded = data[f"rows_{which}.{layer}"]
            ours = rows[layer] if which == "keep" else rows[layer][case["rows"]]
            close(ours, recorded, tolerance, f"{which} {layer}")


@pytest.mark.parametrize("case", MODELS, ids=lambda case: case["name"])
def test_edits_equal_the_recorded_ones_and_act_in_the_model(case: Case) -> None:
    data = golden_tensors(SET, FILE, case["name"])
    model = built(case, data)
    edit, guide, keep = (text_of(case, data, which) for which in ("edit", "guide", "keep"))
    options = {
        "weights": case["edit_weight"],
        "keep_weights": case["preserve_weight"],
        "lamb": case["lamb"],
        "rows": case["rows"],
    }
    state = model.state_dict()
    tolerance = 1e-6 if case["cls"] == "HunyuanDiT2DModel" else 1e-9
    found = edit_model(model, [edit], [guide], [keep], **options)
    for layer in case["stored_layers"]:
        name = f"{layer}.weight"
        largest = (data[f"merged.{name}"] - state[name]).abs().max().item()
        close(found[name], data[f"merged.{name}"], tolerance * largest, name)
    if case["bias"]:
        both = edit_model(model, [edit], [guide], [keep], with_bias=True, **options)
        for layer in case["stored_layers"]:
            for name in (f"{layer}.weight", f"{layer}.bias"):
                recorded = data[f"merged_with_bias.{name}"]
                largest = max((recorded - state[name]).abs().max().item(), 1e-3)
                close(both[name], recorded, tolerance * largest, name)
    # timesteps are embedded in float32, whose sines differ between machines: 4e-7 in the outputs of both
    # kinds
    with torch.no_grad():
        for which, key in (("edit", "output"), ("keep", "output_keep")):
            close(called(case, model, data, which), data[f"{key}_before"], 1e-6, f"{key} before")
        model.load_state_dict(found, strict=False)
        for which, key in (("edit", "output"), ("keep", "output_keep")):
            close(called(case, model, data, which), data[f"{key}_after"], 1e-6, key)
    assert (data["output_after"] - data["output_before"]).abs().max() > 1e-2


@pytest.mark.parametrize(
    "case",
    [case for case in CASES if case["kind"] == "linear_text_projection"],
    ids=lambda case: case["name"],
)
def test_a_text_projection_counts_its_bias_once(case: Case) -> None:
    data = golden_tensors(SET, FILE, case["name"])
    (ours,) = edit_weights(
        [data["W0"]], data["row_edit"], [data["row_guide"].double() @ data["W0"].double().T], data["row_keep"]
    )
    largest = (data["correct_f64"] - data["W0"]).abs().max().item()
    close(ours, data["correct_f64"], 1e-9 * largest, "W")
    (twice,) = edit_weights(
        [data["W0"]],
        data["row_edit"],
        [data["row_guide"].double() @ data["W0"].double().T + data["b0"].double()],
        data["row_keep"],
    )
    assert (twice - data["correct_f64"]).abs().max() > 1e-3


@pytest.mark.parametrize(
    "case",
    [case for case in MODELS if case["name"] in ("pixart", "unet_kolors")],
    ids=lambda case: case["name"],
)
def test_concepts_are_merged_exactly_with_biases_of_their_own_where_there_are_some(case: Case) -> None:
    data = golden_tensors(SET, FILE, case["name"])
    model = built(case, data)
    edit, guide, keep = (text_of(case, data, which) for which in ("edit", "guide", "keep"))
    generator, base = torch.Generator().manual_seed(0), model.state_dict()
    concepts = []
    for text in (edit, guide):
        taught = {
            f"{name}.{part}": base[f"{name}.{part}"]
            + 0.1 * torch.randn(base[f"{name}.{part}"].shape, generator=generator)
            for name in projections(model)
            for part in ("weight", "bias")
            if f"{name}.{part}" in base
        }
        concepts.append((taught, [text]))
    merged = merge_models(model, concepts, [keep], rows=[2, 3], form="constraint")
    for taught, (text,) in concepts:
        for name, rows in text_rows(model, text).items():
            c = rows[2:4]
            wanted = linear(c, taught[f"{name}.weight"], taught.get(f"{name}.bias"))
            close(linear(c, merged[f"{name}.weight"], base.get(f"{name}.bias")), wanted, 1e-9, name)


class FluxTransformer2DModel(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.context_embedder = torch.nn.Linear(4, 6)


def test_models_whose_text_meets_the_picture_are_refused_with_the_reason() -> None:
    text = Text((torch.ones(3, 4),))
    with pytest.raises(
        UsageError, match=r"(?s)change with the picture in FluxT.*text_projection.*context_emb"
    ):
        text_rows(FluxTransformer2DModel(), text)
    assert text_rows(FluxTransformer2DModel(), text, target="text_projection").keys() == {"context_embedder"}
    with pytest.raises(UsageError, match="nothing is known about how Linear reads text"):
        text_rows(torch.nn.Linear(1, 1), text)


@pytest.mark.parametrize("case", MODELS[:2], ids=lambda case: case["name"])
def test_a_lora_is_written_where_the_pipeline_loads_one(case: Case) -> None:
    data = golden_tensors(SET, FILE, case["name"])
    model = built(case, data)
    texts = [[text_of(case, data, which)] for which in ("edit", "guide", "keep")]
    state = edit_model(model, *texts)
    if case["cls"] == "PixArtTransformer2DModel":
        with pytest.raises(UsageError, match=r"(?s)PixArtTransformer2DModel in diffusers cannot load.*PEFT"):
            lora_tensors(model, state)
        return
    tensors, before = lora_tensors(model, state), model.state_dict()
    assert len(tensors) == 2 * len(state)
    for name, weight in state.items():
        layer = f"transformer.{name.removesuffix('.weight')}"
        change = tensors[f"{layer}.lora_B.weight"] @ tensors[f"{layer}.lora_A.weight"]
        close(change.double(), weight - before[name], 1e-5, name)
    with pytest.raises(UsageError, match=r"no place for .*bias"):
        lora_tensors(model, edit_model(model, *texts, with_bias=True))
