"""Judging runs, folders and files by a named protocol."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genzoo.api.evaluation.finished import finished_result
from genzoo.api.evaluation.stated import beside, sampling_of, stated_sampling
from genzoo.api.sampling.sample_run import sample_run_to
from genzoo.core.contracts.tasks import frames_of
from genzoo.core.errors import DataError, UsageError
from genzoo.core.memory import freed_memory_kept

if TYPE_CHECKING:
    from genzoo.api.runs.run_data import RunData, Weights
    from genzoo.evaluation.evaluate_images import Settings
    from genzoo.evaluation.protocols import Protocol
    from genzoo.evaluation.result import EvaluationResult


@freed_memory_kept()
def evaluate_run(
    run: RunData,
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
    again: bool = True,
    **options: Any,
) -> EvaluationResult:
    """Sample a run and judge it; samples stay in its folder, and a second call goes on where one stopped.

    reference: as in genzoo.evaluation.evaluate_images.evaluate, or of clips as in
    genzoo.evaluation.evaluate_clips; the run's own data when left out.
    again: judge anew what was judged before; otherwise its result is taken as it lies there.
    options: of the sampler (steps, guidance_scale, ...) and conditions. The result
    goes to the run's evaluation/ folder.
    """
    from genzoo.data.picture_sets import DatasetPictures
    from genzoo.evaluation.evaluate_images import Settings
    from genzoo.evaluation.features import build_network
    from genzoo.evaluation.protocols import load_protocol
    from genzoo.evaluation.readiness import require_ready

    settings, named = settings or Settings(), load_protocol(protocol)
    world, count = settings.world, num or named.num
    run, options = run.opened_with(options)
    found = run.checkpoint(checkpoint)
    weights = run.choose(found, weights)
    # before the samples are made, not after: data and weights of the network may be missing
    _open_reference(run, reference, named)
    frames = frames_of(run.task(weights=weights, checkpoint=found))
    _check_kind(named, clips=frames is not None)
    options = options | _prompts(named, reference, count, options)
    network = build_network(network or named.network, weights=network_weights, device=settings.device)
    real = DatasetPictures(run.dataset()) if reference is None else reference
    require_ready(named, settings, num=num, reference=real, controls=controls, frames=frames)
    folder = _samples_folder(run, found, weights, [seed, weights, options], count)
    _sample(run, folder, count, settings, seed=seed, weights=weights, checkpoint=found, **options)
    made = stated_sampling(folder) | sampling_of(run, found, seed, weights, options)
    judging: dict[str, Any] = {"protocol": named, "num": num, "network": network, "settings": settings}
    judging |= {"sampling": made} | ({} if controls is None else {"controls": controls})
    target = run.folder / "evaluation" / f"{named.name}-{folder.name}.json"
    if not again:
        known = world.together(lambda: finished_result(target, run, reference, made, judging))
        if world.all_agree(known is not None) and known is not None:
            return known
    result = _judge(folder, run, reference, judging)
    result = replace(
        result,
        generated={**result.generated, "folder": folder.name},
        beside=beside(run.folder / "evaluation", run.folder / "metrics.jsonl", named.name, made),
    )
    world.on_first(lambda: result.save(target))
    return result


def _open_reference(run: RunData, reference: Any, protocol: Protocol) -> None:
    """Raise what opening the reference raises, or the run's own data where there is none."""
    from genzoo.evaluation.clip_sources import open_videos
    from genzoo.evaluation.measuring import open_reference

    if reference is None:
        run.dataset()
    elif isinstance(reference, str | Path):
        open_videos(reference) if protocol.kind == "clips" else open_reference(reference)


def _samples_folder(run: RunData, checkpoint: Path, weights: Weights, asked: list[Any], count: int) -> Path:
    """Where samples lie that are made like this.   asked: all that changes them."""
    length = run.described(checkpoint, weights).get("ema")  # other averages are other samples
    asked = asked if length is None else [*asked, length]
    key = hashlib.sha256(json.dumps(asked, sort_keys=True, default=str).encode()).hexdigest()[:8]
    return run.folder / "evaluation" / f"{checkpoint.name}-{weights}-{key}-{count}"


def _sample(run: RunData, folder: Path, count: int, settings: Settings, /, **options: Any) -> None:
    """Make the samples that are missing, all processes together."""
    sampled = settings.report("sampling", count)
    how: dict[str, Any] = {"num": count, "batch_size": settings.batch_size, "world": settings.world}
    how |= {"progress": lambda done, total: sampled(count - total + done), **options}
    settings.world.together(lambda: sample_run_to(run, folder, **how))


def _prompts(protocol: Protocol, reference: Any, count: int, options: Mapping[str, Any]) -> dict[str, Any]:
    """The captions of the reference, where a protocol has samples made from them and nobody names others."""
    if protocol.reference.get("prompts") != "captions" or "prompt" in options:
        return {}
    from genzoo.data.captioned import read_collection

    fix = "--reference FOLDER, as `genzoo prepare regularization` writes it"
    if not isinstance(reference, str | Path):
        raise UsageError(f"{protocol.name} samples from the captions of its reference", fix=fix)
    captions = [one.caption for one in read_collection(reference)]
    if len(captions) < count:
        raise DataError(
            f"{protocol.name} needs {count} captions, {reference} has {len(captions)}",
            fix=f"more pictures with captions, or --num {len(captions)}",
        )
    return {"prompt": captions[:count]}


def _check_kind(protocol: Protocol, *, clips: bool) -> None:
    """Raise UsageError when a run's samples are not what a protocol judges."""
    kinds = ("clips",) if clips else ("images", "controls")
    if protocol.kind not in kinds:
        raise UsageError(
            f"{protocol.name} judges {protocol.kind}, which a run's samples are not: it makes {kinds[0]}",
            fix="make them with `genzoo sample`, then evaluate their folder"
            if protocol.kind == "concepts"
            else f"choose a protocol for {kinds[0]}",
        )


def _judge(folder: Path, run: RunData, reference: Any, judging: Mapping[str, Any]) -> EvaluationResult:
    """Samples against a reference, or against the run's own data."""
    from genzoo.data.picture_sets import DatasetPictures
    from genzoo.evaluation.evaluate_clips import evaluate_clips
    from genzoo.evaluation.evaluate_images import evaluate

    judge: Any = evaluate_clips if judging["protocol"].kind == "clips" else evaluate
    if reference is not None:
        return judge(folder, reference=reference, **judging)  # type: ignore[no-any-return]
    own, name = DatasetPictures(run.dataset()), run.plan.data.name
    return judge(folder, reference=own, reference_name=name, **judging)  # type: ignore[no-any-return]


@freed_memory_kept()
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
    from genzoo.data.picture_sets import open_pictures
    from genzoo.evaluation.evaluate_clips import evaluate_clips
    from genzoo.evaluation.evaluate_concepts import evaluate_concepts
    from genzoo.evaluation.evaluate_images import Settings, evaluate
    from genzoo.evaluation.protocols import load_protocol
    from genzoo.evaluation.readiness import require_files_ready, require_readable

    if reference is None:
        raise UsageError(
            f"{source} is no run, so it has no data to compare with", fix="give --reference PATH"
        )
    if unused:
        raise UsageError(f"{', '.join(unused)}: only a run can be sampled, and {source} is none")
    named = load_protocol(protocol)
    common: dict[str, Any] = {"protocol": named, "sampling": stated_sampling(source), **judging}
    settings = judging.get("settings") or Settings()
    if named.kind == "concepts":
        network, weights = (common.pop(name) for name in ("network", "weights"))
        if network is not None:
            raise UsageError(f"{named.name} takes two networks; --network cannot replace them")
        common["weights"] = {} if weights is None else dict.fromkeys(("clip", "dino"), weights)
        folders = str(reference).split("+")
        for folder in folders:
            require_readable(open_pictures(folder), "reference", settings)
        return evaluate_concepts(source, reference=folders, **common)
    require_files_ready(source, named, settings, reference=reference, controls=judging.get("controls"))
    judge = evaluate_clips if named.kind == "clips" else evaluate
    return judge(source, reference=reference, **common)
