"""Text, image and subject alignment as Custom Diffusion and CustomConcept101 measure them."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch.nn.functional import normalize

from genzoo.core.errors import DataError, ShapeError, UsageError
from genzoo.evaluation.extraction import extract
from genzoo.evaluation.features import FeatureNetwork, build_network
from genzoo.evaluation.image_sources import FirstImages, ImageSet, batches, open_images
from genzoo.evaluation.judging import Notes, Settings, adjust, environment, note_network
from genzoo.evaluation.protocols import Protocol, load_protocol
from genzoo.evaluation.result import EvaluationResult

if TYPE_CHECKING:
    from torch import Tensor

MODIFIER = re.compile(r"<[^<>\s]+>\s*")


def text_alignment(images: Tensor, texts: Tensor, *, scale: float = 2.5) -> float:
    """CLIPScore: scale * max(cos, 0) of each image with its own prompt, averaged (Hessel et al. 2021).

    images, texts: (n, d), row i belongs to row i.
    """
    if images.shape != texts.shape:
        raise ShapeError(f"one text for each image: {tuple(images.shape)} and {tuple(texts.shape)}")
    cosines = (normalize(images.double()) * normalize(texts.double())).sum(1)
    return float(scale * cosines.clamp_min(0).mean())


def image_alignment(images: Tensor, targets: Tensor) -> float:
    """Mean cosine over all pairs of generated and target images.   images: (n, d), targets: (m, d)."""
    if images.shape[1:] != targets.shape[1:]:
        raise ShapeError(f"features do not fit: {tuple(images.shape)} and {tuple(targets.shape)}")
    return float((normalize(images.double()) @ normalize(targets.double()).T).mean())


def without_modifiers(prompt: str) -> str:
    """The prompt without modifier tokens: "photo of a <new1> cat" -> "photo of a cat"."""
    return MODIFIER.sub("", prompt).strip()


def read_prompts(folder: Path) -> dict[str, str]:
    """prompts.json beside or in a folder of samples: file stem -> prompt."""
    for path in (folder / "prompts.json", folder.parent / "prompts.json"):
        if path.is_file():
            content = json.loads(path.read_text(encoding="utf-8"))
            return {Path(stem).stem: str(prompt) for stem, prompt in content.items()}
    raise DataError(
        f"there is no prompts.json in or beside {folder}", fix='write {"file stem": "prompt", ...} there'
    )


def evaluate_concepts(
    source: str | Path,
    *,
    protocol: str | Protocol,
    reference: Sequence[str | Path] | str | Path,
    num: int | None = None,
    networks: Mapping[str, FeatureNetwork | Callable[[Tensor], Any]] | None = None,
    weights: Mapping[str, str | Path] | None = None,
    sampling: Mapping[str, Any] | None = None,
    settings: Settings | None = None,
) -> EvaluationResult:
    """Judge a folder of samples with prompts.json against one folder of photos for each concept.

    Several concepts: image and subject alignment are taken for each folder, then averaged. networks, weights:
    by the names "clip" and "dino"; a network given for "clip" needs an "encode_text" among its extras.
    """
    started, settings, notes = time.time(), settings or Settings(), Notes()
    named = load_protocol(protocol)
    if named.kind != "concepts" or named.second_network is None:
        raise UsageError(f"{named.name} judges {named.kind}; evaluate_concepts() judges concepts")
    images = open_images(Path(source))
    used = adjust(named, num=num, available=len(images), notes=notes)
    images = FirstImages(images, used.num)
    folders = [reference] if isinstance(reference, str | Path) else list(reference)
    targets = [open_images(Path(folder)) for folder in folders]
    prompts = _prompts_for(images, read_prompts(Path(source)))
    networks, weights = networks or {}, weights or {}
    clip = build_network(
        networks.get("clip", used.network), weights=weights.get("clip"), device=settings.device
    )
    dino = build_network(
        networks.get("dino", named.second_network), weights=weights.get("dino"), device=settings.device
    )
    if "encode_text" not in clip.extras:
        raise UsageError(f"{clip.name} has no text encoder, which text alignment needs")
    note_network(named, clip, notes)
    scores: dict[str, float] = {}
    own = _rows(images, clip, settings)
    scale = used.metrics["clip_text"]["scale"]
    scores["clip_text"] = text_alignment(own, clip.extras["encode_text"](prompts), scale=scale)
    for name, network in (("clip_image", clip), ("dino_image", dino)):
        mine = own if network is clip else _rows(images, network, settings)
        values = [image_alignment(mine, _rows(target, network, settings)) for target in targets]
        scores[name] = sum(values) / len(values)
    digest = [target.content_hash() for target in targets]
    return EvaluationResult(
        protocol=named.name,
        metrics=scores,
        comparable={
            "protocol": used.name,
            "definition": used.fingerprint(),
            "network": [clip.name, dino.name],
            "network file": [clip.weights_sha256, dino.weights_sha256],
            "preprocessing": [clip.preprocessing, dino.preprocessing],
            "generated images": len(images),
            "prompts": sorted(set(prompts)),
            "reference": digest,
        },
        generated={"num": len(images), "sha256": images.content_hash()},
        reference={"name": "+".join(Path(folder).name for folder in folders), "num": sum(map(len, targets))},
        network={"clip": clip.describe(), "dino": dino.describe()},
        sampling=dict(sampling or {}),
        differences=notes.differences,
        warnings=notes.warnings,
        choices=list(named.choices),
        environment=environment(settings, None, time.time() - started),
    )


def _prompts_for(images: ImageSet, prompts: Mapping[str, str]) -> list[str]:
    stems = [Path(images.name(index)).stem for index in range(len(images))]
    missing = [stem for stem in stems if stem not in prompts]
    if missing:
        raise DataError(f"{len(missing)} images have no prompt in prompts.json, such as {missing[0]}")
    return [without_modifiers(prompts[stem]) for stem in stems]


def _rows(images: ImageSet, network: FeatureNetwork, settings: Settings) -> Tensor:
    data = batches(images, batch_size=settings.batch_size, prepare=network.prepare, workers=settings.workers)
    return extract(data, network, statistics=(), rows=("pool",)).rows["pool"]
