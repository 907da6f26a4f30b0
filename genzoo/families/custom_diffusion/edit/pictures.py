"""What an edit does to pictures: how near to the target's they come, and how far others move along."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genzoo.core.errors import UsageError
from genzoo.core.seeds import SampleStreams
from genzoo.diffusion.prompted import sample_prompts, schedule_from
from genzoo.families.custom_diffusion.data.latent_distances import latent_features
from genzoo.families.custom_diffusion.edit.report import EditReport
from genzoo.families.custom_diffusion.edit.verbs import Edit
from genzoo.families.custom_diffusion.files.base_weights import part_of
from genzoo.pretrained.text_to_image import TextToImageParts, load_parts

SAMPLER = {"name": "ddim", "steps": 25, "guidance_scale": 2.0}


def check_sampling(base: str | Path, *, pictures: int, debias: bool) -> None:
    """Raise UsageError where an edit would have to sample a base that genzoo does not sample."""
    if (pictures or debias) and part_of(base) == "transformer":
        raise UsageError(
            f"{'debias' if debias else 'pictures'} would sample the base",
            why="of bases with a transformer keys and values are edited here, and nothing is sampled",
            fix="leave it out, and sample the result with its pipeline in diffusers",
        )


class Drawn:
    """Features of the same noise under a text, for one set of weights after the other."""

    def __init__(
        self, base: str | Path, num: int, *, seed: int = 0, sampler: Mapping[str, Any] | None = None
    ) -> None:
        self.parts: TextToImageParts = load_parts(base)
        self.num, self.seed, self.sampler = num, seed, {**SAMPLER, **(sampler or {})}

    @torch.no_grad()
    def use(self, weights: Mapping[str, Tensor]) -> None:
        """Put projections in place."""
        parameters = dict(self.parts.unet.named_parameters())
        for name, value in weights.items():
            parameters[name].copy_(value.to(parameters[name]))

    def features(self, text: str) -> Tensor:
        """(num, n): latents of the base's autoencoder."""
        streams = SampleStreams.from_seeds(self.seed, "sample", positions=range(self.num))
        pixels = sample_prompts(
            self.parts,
            schedule_from(self.parts.scheduler),
            [text] * self.num,
            streams,
            sampler=self.sampler,
        )
        return latent_features(pixels, self.parts.vae)


def with_pictures(
    reports: Sequence[EditReport],
    edits: Sequence[Edit],
    *,
    drawn: Drawn,
    weights: Mapping[str, Tensor],
    others: Sequence[str],
) -> list[EditReport]:
    """The reports with distances of pictures under the same noise: `to_target`, how far the edited text's are
    from the target's, and `others_moved`, how far each other text's moved, both as a share of how far the
    edited text's moved.
    """
    wanted = {edit.source for edit in edits} | {edit.target for edit in edits if edit.target} | set(others)
    before = {text: drawn.features(text) for text in sorted(wanted)}
    drawn.use(weights)
    after = {text: drawn.features(text) for text in sorted({*(edit.source for edit in edits), *others})}
    found = []
    for report, edit in zip(reports, edits, strict=True):
        moved = max(_distance(after[edit.source], before[edit.source]), 1e-12)
        near = _distance(after[edit.source], before[edit.target]) / moved if edit.target else None
        shares = {text: _distance(after[text], before[text]) / moved for text in others}
        found.append(dataclasses.replace(report, to_target=near, others_moved=shares))
    return found


def _distance(first: Tensor, second: Tensor) -> float:
    return float((first - second).square().mean(1).sqrt().mean())
