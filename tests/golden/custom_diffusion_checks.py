"""One check for each kind of case in the manifest of `custom_diffusion/`; none knows a case's name."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from golden.manifest import golden_root, read_golden
from PIL import Image
from torch import Tensor

from genzoo.families.custom_diffusion.data.augmentation import augment
from genzoo.families.custom_diffusion.data.phrases import row_keys, target_prompts
from genzoo.families.custom_diffusion.files.apply import apply_concept
from genzoo.families.custom_diffusion.files.read_layouts import read_concept
from genzoo.families.custom_diffusion.files.weight_names import from_processor, is_key_value
from genzoo.families.custom_diffusion.files.write_layouts import write_concept
from genzoo.families.custom_diffusion.merge.algebra import merge_with_report
from genzoo.families.custom_diffusion.merge.low_rank import choose_rank, compress_weights
from genzoo.families.custom_diffusion.training.losses import concept_loss, masked_mse
from genzoo.families.custom_diffusion.training.trainable import (
    ExtendedEmbedding,
    choose_trainable,
    stop_first_token_in,
)
from genzoo.pretrained.loading import load_foreign

SET = "custom_diffusion"
Case = dict[str, Any]
Tensors = dict[str, Tensor]


def manifest_cases() -> dict[str, Case]:
    """The cases by name, each with its name inside."""
    manifest = json.loads((golden_root() / SET / "manifest.json").read_text())
    cases = {name: {"name": name, **case} for name, case in manifest["cases"].items()}
    assert cases, "the manifest lists no case"
    return cases


def tensors_of(case: Case) -> Tensors:
    return read_golden(golden_root() / SET / case["file"])


def by_role(tensors: Tensors, role: str) -> Tensors:
    return {
        key.removeprefix(f"{role}/"): value for key, value in tensors.items() if key.startswith(f"{role}/")
    }


def merge_core(case: Case) -> None:
    tensors = tensors_of(case)
    _compare_merge(case, tensors, tensors["C"], tensors["C_reg"])


def merge_e2e(case: Case) -> None:
    """From prompts: which rows count, their values under each concept's weights, then the merge."""
    tensors = tensors_of(case)
    rule = "compvis" if case["official_script"] == "composenW" else "diffusers"
    prompts = case["target_prompts"]
    owners: dict[tuple[int, ...], int] = {}
    chosen: list[Tensor] = []
    for concept, phrase in enumerate(prompts[::2]):
        pair = target_prompts(phrase, rule=rule)
        assert pair == prompts[2 * concept : 2 * concept + 2]
        for key, row in (item for prompt in pair for item in _rows(case, tensors, prompt)):
            if key not in owners:  # the official policy for rows that concepts share: the first keeps it
                owners[key] = concept
                chosen.append(row)
    reg = case["reg_prompts_given"][: case["reg_prompts_used_first"]]
    C_reg = torch.stack([row for prompt in reg for _, row in _rows(case, tensors, prompt)])
    # the official code ran padded batches: equal rows up to rounding
    torch.testing.assert_close(C_reg, tensors["C_reg_selected"], atol=1e-5, rtol=0)
    torch.testing.assert_close(torch.stack(chosen), tensors["C_selected"], atol=1e-5, rtol=0)
    C = tensors["C_selected"]
    for layer, V in by_role(tensors, "V").items():
        taught = [tensors[f"Wn/{layer}/{owner}"] @ c for owner, c in zip(owners.values(), C, strict=True)]
        torch.testing.assert_close(torch.stack(taught), V, rtol=1e-5, atol=1e-5)
    _compare_merge(case, tensors, C, tensors["C_reg_selected"])


def _rows(case: Case, tensors: Tensors, prompt: str) -> list[tuple[tuple[int, ...], Tensor]]:
    entry = next(entry for entry in case["prompts"] if entry["text"] == prompt)
    keys = row_keys(prompt, entry["ids"])
    return [(key, tensors["features"][entry["offset"] + len(key) - 1]) for key in keys]


def _compare_merge(case: Case, tensors: Tensors, C: Tensor, C_reg: Tensor) -> None:
    base, values = by_role(tensors, "W0"), by_role(tensors, "V")
    names = [layer["layer"] for layer in case["layers"]]
    assert sorted(names) == sorted(base)
    result = merge_with_report([base[n] for n in names], C, [values[n] for n in names], C_reg)
    condition = case.get("cond_C_reg")
    moderate = condition is not None and math.isfinite(condition) and condition < 2e3
    for layer, merged in zip(case["layers"], result.weights, strict=True):
        name = layer["layer"]
        reference, W_0 = tensors[f"merged_ref_f64/{name}"], base[name].double()
        error = (merged - reference).norm() / (reference - W_0).norm()
        assert error < (1e-8 if moderate else 1e-6), name
        assert (merged @ C.double().T - values[name].double().T).abs().max() < 1e-7, name
        if moderate:
            official = tensors[f"merged_official_f32/{name}"].double()
            off = (merged - official).norm() / (reference - W_0).norm()
            assert off < 3 * layer["f32_err_rel_to_delta"] + 1e-9, name
        if "ref_objective" in layer:
            objective = float(((merged - W_0) @ C_reg.double().T).norm())
            assert objective <= layer["ref_objective"] * (1 + 1e-6), name


def compress(case: Case) -> None:
    tensors = tensors_of(case)
    taught, base = by_role(tensors, "finetuned"), by_role(tensors, "pretrained")
    expected = {layer["name"]: layer for layer in case["layers"]}
    for name in by_role(tensors, "passthrough"):
        assert not is_key_value(name)
        assert torch.equal(taught[name], tensors[f"passthrough/{name}"])
    chosen = {name: value for name, value in taught.items() if is_key_value(name)}
    assert set(chosen) == {name for name, layer in expected.items() if not layer.get("passthrough")}
    factors = compress_weights(chosen, base, keep=case["ratio"], keep_crossing=False)
    for name, (u, v) in factors.items():
        assert u.shape[1] == v.shape[0] == expected[name]["rank"], name
        if f"u/{name}" in tensors:
            torch.testing.assert_close(u @ v, tensors[f"u/{name}"] @ tensors[f"v/{name}"], atol=1e-5, rtol=0)
        torch.testing.assert_close(base[name] + u @ v, tensors[f"reconstruction/{name}"], atol=1e-5, rtol=0)
        values = torch.linalg.svdvals(chosen[name] - base[name])
        if values[0] > 0:
            rank = choose_rank(values, case["ratio"])
            assert rank >= 1
            assert values[:rank].sum() >= min(case["ratio"], 1 - 1e-6) * values.sum()


class Replay:
    """Recorded draws, each checked against what is asked for."""

    def __init__(self, draws: Sequence[list[Any]]) -> None:
        self.left = list(draws)

    def randint(self, low: int, high: int) -> int:
        kind, *bounds, value = self.left.pop(0)
        assert (kind, bounds) == ("randint", [low, high])
        return int(value)

    def uniform(self) -> float:
        kind, value = self.left.pop(0)
        assert kind == "uniform"
        return float(value)

    def choice(self, options: Sequence[str]) -> str:
        kind, known, value = self.left.pop(0)
        assert (kind, known) == ("choice", list(options))
        return str(value)


RULE_OF = {
    "official_diffusers": "official",
    "official_compvis": "official_crop",
    "diffusers_example": "diffusers",
}


def augmentation(case: Case) -> None:
    tensors = tensors_of(case)
    image = Image.fromarray(tensors["input_image_uint8"].numpy())
    for record in case["records"]:
        impl = record["impl"].removesuffix("_noaug")
        draws = Replay(record["draws"])
        if impl == "official_compvis":
            assert draws.choice(["photo of a {}"]) == "photo of a {}"
        rule, enabled = RULE_OF[impl], impl == record["impl"]
        made = augment(image, "photo of a <new1> cat", draws, size=case["size"], rule=rule, enabled=enabled)
        assert not draws.left
        assert made.prompt == record["prompt"]
        assert list(made.mask.shape) == record["mask_shape"]
        assert made.mask.sum() == record["mask_sum"]
        if record["mask_sum"]:
            rows, columns = made.mask.nonzero().T
            box = [int(rows.min()), int(rows.max()) + 1, int(columns.min()), int(columns.max()) + 1]
            assert box == record["mask_bbox"]
        assert int((made.pixels != 0).any(dim=0).sum()) == record["nonzero_px"]
        assert abs(float(made.pixels.mean()) - record["img_mean"]) < 2e-3
        assert abs(float(made.pixels.abs().mean()) - record["img_abs_mean"]) < 2e-3
        if "image" in record:
            torch.testing.assert_close(made.pixels, tensors[record["image"]], atol=1.01 / 127.5, rtol=0)
            assert torch.equal(made.mask, tensors[record["mask"]])


def loss(case: Case) -> None:
    tensors, num = tensors_of(case), case["B"]
    target, mask = tensors["target"], tensors["mask"]
    options = {"num_instances": num, "prior_loss_weight": case["prior_loss_weight"]}
    for key, expected in case["values"].items():
        impl, _, what = key.partition("/")
        pred = tensors["pred"].clone().requires_grad_()
        if impl == "compvis_p_losses":
            found = concept_loss(pred, target, mask, prior="masked", **options)[0]
        elif impl == "official_sdxl":
            # its mask has no effect: a plain mean
            found = masked_mse(
                pred[:num], target[:num], torch.ones_like(mask[:num]), normalize_mask_channels=True
            )
        elif what == "no_prior":
            found = concept_loss(pred[:num], target[:num], mask[:num], **options)[0]
        else:
            total, prior_term = concept_loss(pred, target, mask, **options)
            found = total if what == "with_prior" else prior_term
        assert abs(found.item() - expected) <= 1e-6 * abs(expected), key
        if what == "with_prior":
            (grad,) = torch.autograd.grad(found, pred)
            torch.testing.assert_close(grad, tensors[f"grad_pred/{impl}"], atol=1e-6, rtol=1e-5)


def embedding_grad_mask(case: Case) -> None:
    for key, expected in case["expected_correct"].items():
        num_new = int(key.removeprefix("n="))
        table = torch.randn(expected[0], 4)
        embedding = ExtendedEmbedding(table, torch.randn(num_new, 4))
        assert embedding.new_ids == expected
        trainable = [p for p in embedding.parameters() if p.requires_grad]
        assert [tuple(p.shape) for p in trainable] == [(num_new, 4)]
        ids = torch.arange(len(embedding.weight))[None]
        embedding(ids).square().sum().backward()
        assert (trainable[0].grad != 0).all()


def build_unet(case: Case, tensors: Tensors) -> Any:
    from diffusers import UNet2DConditionModel

    unet = UNet2DConditionModel(**case["config"])
    unet.load_state_dict(by_role(tensors, "base"), strict=True)
    return unet.eval()


def unet(case: Case) -> None:
    """Files of diffusers' layout: read, written into the projections, compared, and written back."""
    tensors = tensors_of(case)
    model = build_unet(case, tensors)

    @torch.no_grad()
    def run() -> Tensor:
        return model(tensors["in/latents"], tensors["in/timesteps"], tensors["in/text"]).sample

    torch.testing.assert_close(run(), tensors["out/base"], atol=1e-5, rtol=0)
    for suffix in ("bin", "safetensors"):
        path = golden_root() / SET / f"{case['name']}.pytorch_custom_diffusion_weights.{suffix}"
        concept = read_concept(path)
        assert concept.freeze_mode == ("crossattn" if case["train_q_out"] else "crossattn_kv")
        applied = apply_concept(concept, SimpleNamespace(unet=model))
        assert applied.output_change > 1e-3
        for name in ("custom_loader", "custom_written_into_to_kv"):
            torch.testing.assert_close(run(), tensors[f"out/{name}"], atol=1e-5, rtol=0)
        applied.undo()
        torch.testing.assert_close(run(), tensors["out/base"], atol=1e-5, rtol=0)
        with tempfile.TemporaryDirectory() as folder:
            written = write_concept(concept, Path(folder) / "files", layout="diffusers")
            tree = load_foreign(written / "pytorch_custom_diffusion_weights.bin")
        assert {k: list(v.shape) for k, v in tree.items() if isinstance(v, Tensor)} == case["custom_keys"]
        assert sorted(k for k, v in tree.items() if v == {}) == sorted(case["empty_keys_in_bin"])


def train_step(case: Case) -> None:
    tensors = tensors_of(case)
    model = build_unet(case, tensors)
    mode = "crossattn" if case["train_q_out"] else "crossattn_kv"
    parameters = choose_trainable(model, mode)
    taught = {from_processor(name): value for name, value in by_role(tensors, "custom").items()}
    assert set(parameters) == set(taught)
    with torch.no_grad():
        for name, value in taught.items():
            parameters[name].copy_(value)
    stop_first_token_in(model)
    text = tensors["text"].clone().requires_grad_()
    pred = model(tensors["noisy"], tensors["timesteps"], text).sample
    torch.testing.assert_close(pred, tensors["pred"], atol=1e-5, rtol=0)
    num = len(pred) // 2
    total, prior_term = concept_loss(
        pred,
        tensors["noise"],
        tensors["mask"],
        num_instances=num,
        prior_loss_weight=case["prior_loss_weight"],
    )
    assert abs(total.item() - case["loss"]) < 1e-5 * case["loss"]
    assert abs(prior_term.item() - case["prior_term"]) < 1e-5 * case["prior_term"]
    total.backward()
    for name, expected in by_role(tensors, "grad").items():
        torch.testing.assert_close(parameters[from_processor(name)].grad, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(text.grad, tensors["grad_text"], atol=1e-5, rtol=0)
    assert not text.grad[:, 0].any()
    assert all(p.grad is None for name, p in model.named_parameters() if name not in parameters)


CHECKS = {
    check.__name__: check
    for check in (merge_core, merge_e2e, compress, augmentation, loss, embedding_grad_mask, unet, train_step)
}
