"""Closed-form edits against the published code's numbers and their float64 references, case by case."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from golden.manifest import golden_cases, golden_root, read_golden
from torch import Tensor

from genzoo.families.custom_diffusion.edit.debias import debias_targets
from genzoo.families.custom_diffusion.edit.rows import TextRows
from genzoo.families.custom_diffusion.edit.solve import edit_weights
from genzoo.families.custom_diffusion.edit.verbs import RULES
from genzoo.pretrained.prompts import PromptFeatures

SET, FILE = "concept_editing", "uce"
Case, Tensors = dict[str, Any], dict[str, Tensor]
TOLERANCE = 1e-9


def everything() -> Tensors:
    folder = golden_root() / SET
    manifest = json.loads((folder / "manifest.json").read_text())
    return read_golden(folder / manifest["files"][FILE]["file"])


def under(tensors: Tensors, prefix: str) -> Tensors:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


class Recorded:
    """The features of a case's texts, in place of a text encoder."""

    max_length = 77

    def __init__(self, case: Case, data: Tensors) -> None:
        self.rows = {prompt["text"]: data[prompt["features_key"]] for prompt in case["prompts"]}
        self.lasts = {prompt["text"]: prompt["last_subject_row"] for prompt in case["prompts"]}

    def num_chunks(self, text: str) -> int:
        return 1

    def encode(self, texts: list[str]) -> list[PromptFeatures]:
        # as many ids as there are tokens up to EOS, which is one after the last subject row
        return [
            PromptFeatures(text, tuple(range(self.lasts[text] + 2)), self.rows[text][: self.lasts[text] + 2])
            for text in texts
        ]

    def padding_rows(self, texts: list[str]) -> Tensor:
        return torch.cat([self.rows[text][self.lasts[text] + 2 :] for text in texts])


def close(ours: Tensor, case: Case, data: Tensors, key: str, W_0: Tensor) -> None:
    """Against float64 at 1e-9 and against the published code at its stated tolerance, of the largest
    change.
    """
    reference = data[f"ref_f64.{key}"]
    largest = (reference - W_0.double()).abs().max()
    assert (ours - reference).abs().max() <= TOLERANCE * largest, key
    stated = float(case["tolerance"]["official_f32"].split()[0])
    assert (ours - data[f"official_f32.{key}"].double()).abs().max() <= stated * largest, key


def uce_2025(case: Case, data: Tensors, base: Tensors) -> None:
    texts = TextRows(Recorded(case, data))  # type: ignore[arg-type]
    pairs = [
        texts.paired([source, guide], "last")
        for source, guide in zip(case["edit"], case["guide"], strict=True)
    ]
    C, G = (torch.cat(rows) for rows in zip(*pairs, strict=True))
    torch.testing.assert_close(C, data["C_edit"].double(), atol=0, rtol=0)
    torch.testing.assert_close(G, data["C_guide"].double(), atol=0, rtol=0)
    solved(case, data, base, C, G, data["C_preserve"])


def uce_2025_debias(case: Case, data: Tensors, base: Tensors) -> None:
    C, A, q = data["C_edit"].double(), data["C_attributes"].double(), data["accumulated_shares"]
    torch.testing.assert_close(data["deltas"].sum(0).double(), q.double())
    T = torch.cat([debias_targets(C[i : i + 1], [a[None] for a in A], q[i].double()) for i in range(len(C))])
    solved(case, data, base, C, T, data["C_preserve"])


def solved(case: Case, data: Tensors, base: Tensors, C: Tensor, T: Tensor, keep: Tensor) -> None:
    names = [f"{layer}.weight" for layer in case["layers"]]
    W = edit_weights(
        [base[name] for name in names],
        C,
        [T @ base[name].double().T for name in names],
        keep,
        weights=case["edit_weight"],
        keep_weights=case["preserve_weight"],
        lamb=case["lamb"],
    )
    for name, ours in zip(names, W, strict=True):
        close(ours, case, data, name, base[name])


def uce_2023(case: Case, data: Tensors, base: Tensors) -> None:
    recorded = Recorded(case, data)
    texts = TextRows(recorded)  # type: ignore[arg-type]
    guides = [" " if case["technique"] == "tensor" else target for _, target in case["edits"]]
    pairs = [
        texts.paired([source, guide], "tail")
        for (source, _), guide in zip(case["edits"], guides, strict=True)
    ]
    # the published code cuts all edits to one length
    count = min(len(c) for c, _ in pairs)
    C, G = (torch.cat([rows[:count] for rows in side]) for side in zip(*pairs, strict=True))
    keep = torch.cat([recorded.rows[text] for text in case["preserve"]])
    for layer in case["layers"]:
        name = f"{layer}.weight"
        W_0 = base[name].double()
        V = tensor_values(W_0, C, G) if case["technique"] == "tensor" else G @ W_0.T
        (ours,) = edit_weights(
            [W_0],
            C,
            [V],
            keep,
            weights=case["edit_weight"],
            keep_weights=case["preserve_weight"],
            lamb=case["lamb"],
        )
        close(ours, case, data, name, W_0)


def tensor_values(W_0: Tensor, C: Tensor, G: Tensor) -> Tensor:
    """The guide's values without their part along the concept's, over all rows at once."""
    old, guide = C @ W_0.T, G @ W_0.T
    unit = old / old.norm()
    return guide - (unit * guide).sum() * unit


def ridge_and_constraint(case: Case, data: Tensors, base: Tensors) -> None:
    W_0, C, V, P = (data[name] for name in ("W0", "C", "V", "P"))

    def edited(**options: Any) -> Tensor:
        return edit_weights([W_0], C, [V], P, **options)[0]

    for number, row in enumerate(case["table"]):
        ours = edited(weights=row["edit_weight"], lamb=row["lamb"])
        reference = data[f"ridge{number}"]
        tolerance = 1e-7 if row["edit_weight"] >= 1e8 else TOLERANCE
        assert (ours - reference).abs().max() <= tolerance * (reference - W_0).abs().max()
        assert float((ours @ C.T - V.T).abs().max()) == pytest.approx(row["residual"], rel=1e-6)
    others = {
        "ridge_weighted": edited(
            weights=data["edit_weights"], keep_weights=data["preserve_weights"], lamb=case["weighted"]["lamb"]
        ),
        "constrained": edited(form="constraint", lamb=0.0),
        "constrained_lamb": edited(form="constraint", lamb=0.5),
    }
    for name, ours in others.items():
        assert (ours - data[name]).abs().max() <= TOLERANCE * (data[name] - W_0).abs().max(), name
    # the ridge goes over into the constraint as the edit's weight grows
    gaps = [
        (edited(weights=10.0**k, lamb=0.5) - data["constrained_lamb"]).norm().item() for k in (2, 4, 6, 8)
    ]
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[-1] < 1e-5 * gaps[0]


def target_rules(case: Case, data: Tensors, base: Tensors) -> None:
    W_0, C, A, P = (data[name] for name in ("W0", "C", "A", "P"))
    named = [key.removeprefix("W_") for key in data if key.startswith("W_")]
    assert {name.partition("_")[0] for name in named} >= {"redirect", "soften", "strengthen", "add", "scale"}
    for name in named:
        verb, _, number = name.partition("_")
        strength = float(number.replace("_", ".")) if number else 1.0
        V = RULES[verb](C, A, strength) @ W_0.T
        torch.testing.assert_close(V, data[f"V_{name}"], atol=1e-12, rtol=1e-12)
        (ours,) = edit_weights([W_0], C, [V], P)
        reference = data[f"W_{name}"]
        assert (ours - reference).abs().max() <= TOLERANCE * (reference - W_0).abs().max(), name


CHECKS = {
    "uce_2025": uce_2025,
    "uce_2025_debias": uce_2025_debias,
    "uce_2023": uce_2023,
    "ridge_and_constraint": ridge_and_constraint,
    "target_rules": target_rules,
}


@pytest.mark.parametrize("case", golden_cases(SET, FILE), ids=lambda case: case["name"])
def test_edits_equal_the_recorded_ones(case: Case) -> None:
    tensors = everything()
    base = under(tensors, f"{case['base']}/") if "base" in case else {}
    CHECKS[case["kind"]](case, under(tensors, f"{case['name']}/"), base)
