"""Judging runs, folders and files by a named protocol."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genzoo.api.processes import is_first, wait_for_all
from genzoo.api.run import choose_weights
from genzoo.core.errors import UsageError

if TYPE_CHECKING:
    from genzoo.api.run import Run, Weights
    from genzoo.evaluation.protocols import Protocol
    from genzoo.evaluation.result import EvaluationResult
    from genzoo.evaluation.runner import Settings


def evaluate_run(
    run: Run,
    *,
    protocol: str | Protocol = "quick",
    reference: Any = None,
    num: int | None = None,
    seed: int = 0,
    weights: Weights | None = None,
    checkpoint: str | int | Path | None = None,
    network: Any = None,
    network_weights: str | Path | None = None,
    controls: str | Path | None = None,
    settings: Settings | None = None,
    **options: Any,
) -> EvaluationResult:
    """Sample a run and judge it; samples stay in its folder, and a second call goes on where one stopped.

    reference: as in genzoo.evaluation.runner.evaluate; the run's own data when left out. options: of the
    sampler (steps, guidance_scale, ...) and conditions. The result goes to the run's evaluation/ folder.
    """
    from genzoo.evaluation.images import DatasetImages
    from genzoo.evaluation.protocols import load_protocol
    from genzoo.evaluation.runner import Settings, evaluate

    settings, named = settings or Settings(), load_protocol(protocol)
    if named.kind not in ("images", "controls"):
        raise UsageError(
            f"{named.name} judges {named.kind}, which a run's samples are not",
            fix="make them with `genzoo sample`, then evaluate their folder",
        )
    found = run.checkpoint(checkpoint)
    weights = choose_weights(found, weights)
    key = hashlib.sha256(
        json.dumps([seed, weights, options], sort_keys=True, default=str).encode()
    ).hexdigest()[:8]
    count = num or named.num
    folder = run.folder / "evaluation" / f"{found.name}-{weights}-{key}-{count}"
    sampled = settings.report("sampling", count)
    run.sample_to(
        folder,
        num=count,
        seed=seed,
        weights=weights,
        checkpoint=found,
        batch_size=settings.batch_size,
        progress=lambda done, total: sampled(count - total + done),
        **options,
    )
    wait_for_all()
    name = None if reference is not None else str(run.recipe.section("data").get("name"))
    result = evaluate(
        folder,
        protocol=named,
        reference=DatasetImages(run.dataset()) if reference is None else reference,
        num=num,
        network=network,
        weights=network_weights,
        sampling=sampling_of(run, found.name, seed, weights, options),
        reference_name=name,
        controls=controls,
        settings=settings,
    )
    result = replace(result, generated={**result.generated, "folder": folder.name})
    if is_first():
        result.save(run.folder / "evaluation" / f"{named.name}-{folder.name}.json")
    return result


def sampling_of(
    run: Run, checkpoint: str, seed: int, weights: str, options: Mapping[str, Any]
) -> dict[str, Any]:
    """How the samples were made, as the result states it."""
    section = dict(run.recipe.section("sampler"))
    chosen = {"sampler": section.pop("name", None), **section, **options}
    return {
        **chosen,
        "weights": weights,
        "seed": seed,
        "checkpoint": checkpoint,
        "run": run.recipe.name,
        "recipe_sha256": run.recipe.sha256,
    }


def evaluate_files(
    source: Path,
    *,
    protocol: str | Protocol,
    reference: Path | None,
    unused: Mapping[str, Any],
    **judging: Any,
) -> EvaluationResult:
    """Judge samples on disk; what samples.json says of their making goes into the result.

    Several concepts are several reference folders, joined by "+".
    """
    from genzoo.evaluation.alignment import evaluate_concepts
    from genzoo.evaluation.clips import evaluate_clips
    from genzoo.evaluation.protocols import load_protocol
    from genzoo.evaluation.runner import evaluate

    if reference is None:
        raise UsageError(
            f"{source} is no run, so it has no data to compare with", fix="give --reference PATH"
        )
    if unused:
        raise UsageError(f"{', '.join(unused)}: only a run can be sampled, and {source} is none")
    named = load_protocol(protocol)
    common: dict[str, Any] = {"protocol": named, "sampling": stated_sampling(source), **judging}
    if named.kind == "concepts":
        network, weights = common.pop("network"), common.pop("weights")
        if network is not None:
            raise UsageError(f"{named.name} takes two networks; --network cannot replace them")
        common["weights"] = {} if weights is None else dict.fromkeys(("clip", "dino"), weights)
        return evaluate_concepts(source, reference=str(reference).split("+"), **common)
    judge = evaluate_clips if named.kind == "clips" else evaluate
    return judge(source, reference=reference, **common)


def stated_sampling(source: Path) -> dict[str, Any]:
    """What samples.json in a folder of samples says about them; {} when there is none."""
    path = source / "samples.json"
    if not path.is_file():
        return {}
    content = json.loads(path.read_text(encoding="utf-8"))
    options = content.get("options") or {}
    kept = {
        key: content[key]
        for key in ("run", "recipe_sha256", "checkpoint", "weights", "seed")
        if key in content
    }
    return {**options, **kept}
