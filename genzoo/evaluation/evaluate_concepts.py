"""Text, image and subject alignment as Custom Diffusion and CustomConcept101 measure them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from genzoo.core.errors import DataError, UsageError
from genzoo.core.reading import shown
from genzoo.data.picture_sets import PictureSet, content_hash, open_pictures
from genzoo.data.text_files import read_json
from genzoo.evaluation.batches import batches
from genzoo.evaluation.extraction import Features, extract
from genzoo.evaluation.features import FeatureNetwork
from genzoo.evaluation.judging import Settings, begin, judge
from genzoo.evaluation.protocols import Protocol, load_protocol
from genzoo.evaluation.reference import Reference
from genzoo.evaluation.result import EvaluationResult

if TYPE_CHECKING:
    from torch import Tensor

MODIFIER = re.compile(r"<[^<>\s]+>\s*")


def without_modifiers(prompt: str) -> str:
    """The prompt without modifier tokens: "photo of a <new1> cat" -> "photo of a cat"."""
    return MODIFIER.sub("", prompt).strip()


def read_prompts(folder: Path) -> dict[str, str]:
    """prompts.json beside or in a folder of samples: file stem -> prompt, or the name with its folder, as
    `genzoo sample --prompts` writes it.
    """
    places = (folder / "prompts.json", folder.parent / "prompts.json")
    found = next((path for path in places if path.is_file()), None)
    form = 'write {"file stem": "prompt", ...} there'
    if found is None:
        raise DataError(f"there is no prompts.json in or beside {shown(folder)}", fix=form)
    content = read_json(found)
    if not isinstance(content, dict):
        raise DataError(f"{shown(found)} is no table of prompts", fix=form)
    inside = "" if found.parent == folder else f"{folder.name}/"
    named = {PurePath(name.removeprefix(inside)).with_suffix(""): str(text) for name, text in content.items()}
    counts = Counter(name.name for name in named)
    alone = {name.name: text for name, text in named.items() if counts[name.name] == 1}
    return alone | {name.as_posix(): text for name, text in named.items()}


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
    named = load_protocol(protocol, kinds=("concepts",), judge="evaluate_concepts")
    opened = open_pictures(Path(source))
    instead, files = networks or {}, weights or {}
    roles = {named.network: "clip", str(named.second_network): "dino"}
    chosen = {name: (instead.get(role), files.get(role)) for name, role in roles.items()}
    judging = begin(named, available=len(opened), num=num, networks=chosen, settings=settings)
    clip, dino = judging.networks
    if "encode_text" not in clip.extras:
        raise UsageError(f"{clip.name} has no text encoder, which text alignment needs")
    images = judging.first(opened, "images")
    prompts = _prompts_for(images, read_prompts(Path(source)))
    folders = [Path(folder) for folder in ([reference] if isinstance(reference, str | Path) else reference)]
    targets = [open_pictures(folder) for folder in folders]
    found = Features(count=len(images), rows={"text": clip.extras["encode_text"](prompts)})
    rows: dict[str, Tensor] = {}
    for role, network in (("clip", clip), ("dino", dino)):
        found.rows[role] = _rows(images, network, judging.settings)
        rows |= {f"{role}/{i}": _rows(part, network, judging.settings) for i, part in enumerate(targets)}
    hashes, count = [content_hash(part) for part in targets], sum(map(len, targets))
    return judge(
        found,
        Reference(hashes, {}, rows, count),
        judging,
        comparable={"generated images": len(images), "prompts": sorted(set(prompts))},
        described={"sha256": content_hash(images)},
        reference_name="+".join(folder.name for folder in folders),
        sampling=sampling,
    )


def _prompts_for(images: PictureSet, prompts: Mapping[str, str]) -> list[str]:
    names = [PurePath(images.name(index)).with_suffix("").as_posix() for index in range(len(images))]
    # a table of bare stems holds for pictures in folders too
    stems = [name if name in prompts else PurePath(name).name for name in names]
    missing = [stem for stem in stems if stem not in prompts]
    if missing:
        raise DataError(f"{len(missing)} images have no prompt in prompts.json, such as {missing[0]}")
    return [without_modifiers(prompts[stem]) for stem in stems]


def _rows(images: PictureSet, network: FeatureNetwork, settings: Settings) -> Tensor:
    data = batches(images, batch_size=settings.batch_size, prepare=network.prepare, workers=settings.workers)
    return extract(data, network, statistics=(), rows=("pool",)).rows["pool"]
