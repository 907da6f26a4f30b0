"""Debias: move a concept towards attributes until its pictures show them in the wanted shares.

Each round adds to q_i the wanted share less the share that was found, and sends the concept's rows to
W_0 (c + sum_i q_i a_i), always from W_0 (the recursion of the published code, which keeps q only inside its
targets); concepts whose differences are all small are left as they are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genzoo.core.errors import UsageError
from genzoo.core.seeds import SampleStreams
from genzoo.diffusion.prompted import sample_prompts, schedule_from
from genzoo.families.custom_diffusion.edit.verbs import Edit
from genzoo.pretrained.text_to_image import TextToImageParts, load_parts

Classifier = Callable[[Tensor, Sequence[str]], Sequence[int]]
"""Which of some labels each picture shows: (n, 3, h, w) in [-1, 1] and the labels -> n places in the
labels.
"""

MAX_DIFFERENCE = 0.05
NUM_PICTURES = 10
# of the pixels that CLIP's picture towers were trained on
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
SAMPLER = {"name": "ddim", "steps": 20, "guidance_scale": 7.5}


def next_shares(q: Tensor, wanted: Tensor, found: Tensor, *, step: float = 1.0) -> Tensor:
    """q + step (wanted - found), all (k,); as it was when every difference is below MAX_DIFFERENCE."""
    difference = wanted - found
    return q if bool((difference.abs() < MAX_DIFFERENCE).all()) else q + step * difference


def debias_targets(c: Tensor, attributes: Sequence[Tensor], q: Tensor) -> Tensor:
    """c + sum_i q_i a_i, (s, d) each."""
    return c + sum((share * a for share, a in zip(q, attributes, strict=True)), torch.zeros_like(c))


def debias_rounds(
    edits: Sequence[Edit],
    attributes: Mapping[int, Sequence[Tensor]],
    targets: Tensor,
    spans: Sequence[slice],
    *,
    base: str | Path,
    weights_of: Callable[[Tensor], Mapping[str, Tensor]],
    classifier: Classifier | None,
    rounds: int,
    seed: int = 0,
) -> tuple[Tensor, list[dict[str, Any]]]:
    """Targets (s, d) with those of debias moved until the shares are met, and what each round found.

    attributes: by the number of an edit, rows (s_e, d) of each attribute.   weights_of: edited projections
    for targets. Raises UsageError without a classifier.
    """
    if classifier is None:
        raise UsageError(
            "debias needs a classifier that says which attribute a picture shows",
            fix="--clip MODEL --clip-weights FILE, or classifier= from Python",
        )
    parts, log = load_parts(base), []
    first, current = targets.clone(), targets.clone()
    q = {number: torch.zeros(len(rows), dtype=torch.float64) for number, rows in attributes.items()}
    for turn in range(rounds):
        _write(parts, weights_of(current))
        settled = True
        for number, rows in attributes.items():
            edit = edits[number]
            found = shares_found(parts, edit, classifier, seed=seed)
            wanted = torch.tensor(list(edit.shares.values()), dtype=torch.float64)
            shown = dict(zip(edit.shares, found.tolist(), strict=True))
            log.append({"round": turn, "edit": edit.label, "found": shown, "q": q[number].tolist()})
            moved = next_shares(q[number], wanted, found, step=edit.strength)
            settled &= moved is q[number]
            q[number] = moved
            own = spans[number]
            current[own] = debias_targets(first[own], rows, moved)
        if settled:
            break
    return current, log


@torch.no_grad()
def shares_found(
    parts: TextToImageParts, edit: Edit, classifier: Classifier, *, seed: int, num: int = NUM_PICTURES
) -> Tensor:
    """(k,) shares of the attributes among pictures of the bare text."""
    streams = SampleStreams.from_seeds(seed, "debias", positions=range(num))
    pixels = sample_prompts(
        parts, schedule_from(parts.scheduler), [edit.source] * num, streams, sampler=SAMPLER
    )
    labels = list(edit.shares)
    counts = Counter(int(place) for place in classifier(pixels, labels))
    if sum(counts.values()) != num or not set(counts) <= set(range(len(labels))):
        raise UsageError("the classifier has to name one label for each picture", fix="places in the labels")
    return torch.tensor([counts[place] / num for place in range(len(labels))], dtype=torch.float64)


def clip_classifier(model: str | Path, weights: str | Path | None = None, device: str = "cpu") -> Classifier:
    """The label whose text is nearest to a picture, by an open_clip model."""
    from genzoo.pretrained.clip import load_clip

    clip = load_clip(model, weights=weights, device=device)

    def classify(pixels: Tensor, labels: Sequence[str]) -> list[int]:
        side = (clip.image_size, clip.image_size)
        resized = torch.nn.functional.interpolate(pixels, side, mode="bicubic", antialias=True)
        mean, std = (pixels.new_tensor(numbers)[:, None, None] for numbers in (CLIP_MEAN, CLIP_STD))
        pictures = clip.encode_image(((resized.clamp(-1, 1) + 1) / 2 - mean) / std)
        return [int(place) for place in (pictures.cpu() @ clip.encode(labels).T).argmax(1)]

    return classify


@torch.no_grad()
def _write(parts: TextToImageParts, weights: Mapping[str, Tensor]) -> None:
    parameters = dict(parts.unet.named_parameters())
    for name, value in weights.items():
        parameters[name].copy_(value.to(parameters[name]))
