"""The `evaluate` command: options, progress, where the result goes and how it is shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from genzoo.api.commands import completion
from genzoo.api.commands.arguments import Overwrite, require_run, settings_from
from genzoo.api.commands.evaluation_sweep import judge_sweep, sweep_text, varied_setting
from genzoo.api.commands.sample import given_once
from genzoo.api.commands.terminal import load_torch
from genzoo.assets.shipped import is_shipped
from genzoo.core.claims import claim_file
from genzoo.core.errors import UsageError
from genzoo.core.files import write_file
from genzoo.core.paths import beside
from genzoo.core.processes import chosen_device, connected
from genzoo.core.progress import Progress

OF_ONE = "--sweep judges a run several times: --output, --report and --compare are of one result"

if TYPE_CHECKING:
    from genzoo.api.run import Run
    from genzoo.evaluation.protocols import Protocol
    from genzoo.evaluation.result import EvaluationResult


def evaluate_command(
    source: Annotated[
        Path,
        typer.Argument(
            help="a run, a file that `sample` opens, a folder of images or videos, or an npz file",
            autocompletion=completion.runs,
        ),
    ],
    settings: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]...",
            help="of a run: where its data are now, data.root=FOLDER; how to sample, eta=0.5",
        ),
    ] = None,
    protocol: Annotated[
        str,
        typer.Option(
            help="how to judge: a name, or FILE.yaml:NAME; see genzoo/evaluation/README.md",
            autocompletion=completion.protocols,
        ),
    ] = "quick",
    reference: Annotated[
        Path | None, typer.Option(help="folder, npz of images, or ADM npz; a run's own data when left out")
    ] = None,
    num: Annotated[
        int | None,
        typer.Option(
            "--num",
            "--num-samples",
            min=1,
            help="judge this many images; the result says so; torchrun takes the longer name only",
        ),
    ] = None,
    network: Annotated[str | None, typer.Option(help="another feature network, stated in the result")] = None,
    weights: Annotated[Path | None, typer.Option(help="weights file of the feature network")] = None,
    model_weights: Annotated[
        str | None, typer.Option(metavar="ema|raw", help="a run's averaged or raw weights")
    ] = None,
    checkpoint: Annotated[str | None, typer.Option(help="a run's checkpoint, by step")] = None,
    seed: Annotated[int, typer.Option(help="of the samples of a run")] = 0,
    steps: Annotated[int | None, typer.Option(min=1, help="sampling steps of a run")] = None,
    guidance_scale: Annotated[float | None, typer.Option(help="guidance of a run's samples")] = None,
    unguided: Annotated[
        bool, typer.Option("--unguided", help="judge a run without guidance first, and keep it beside")
    ] = False,
    ema: Annotated[
        float | None, typer.Option(help="a run's average of this relative length, such as 0.05")
    ] = None,
    sampler: Annotated[str | None, typer.Option(help="sampler of a run's samples")] = None,
    sweep: Annotated[
        str | None,
        typer.Option(
            metavar="KEY=VALUE,VALUE,...",
            help="judge a run once for each value of a setting of its sampling: guidance_scale=1,1.5,2,3",
        ),
    ] = None,
    controls: Annotated[
        Path | None, typer.Option(help="folder of control maps, for control protocols")
    ] = None,
    compare: Annotated[
        list[Path] | None,
        typer.Option(help="earlier results to set beside this one; unlike ones are refused"),
    ] = None,
    intervals: Annotated[
        bool, typer.Option("--intervals/--no-intervals", help="how far each number may be off; costs memory")
    ] = True,
    infinity: Annotated[
        str | None,
        typer.Option(metavar="jackknife|line", help="also Fréchet distances at infinitely many samples"),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="write the result's JSON here")
    ] = None,
    report: Annotated[bool, typer.Option("--report", help="write one HTML page beside the result")] = False,
    device: Annotated[str | None, typer.Option(help="cpu or cuda; the accelerator when there is one")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="images at once; does not change the numbers")] = 64,
    overwrite: Overwrite = False,
    as_json: Annotated[bool, typer.Option("--json", help="print the result as JSON")] = False,
) -> None:
    """Judge samples by a named protocol; the result states everything its numbers depend on."""
    require_run(source, "a run, and no samples either")
    load_torch()
    from genzoo.api.evaluation.evaluate_run import evaluate_files, evaluate_run
    from genzoo.evaluation.evaluate_images import Settings
    from genzoo.evaluation.intervals.estimate import Uncertainty
    from genzoo.evaluation.protocols import load_protocol
    from genzoo.evaluation.report import is_page
    from genzoo.evaluation.result import is_result, load_result

    others = {str(path): load_result(path) for path in compare or []}
    if output is not None:  # now, and not after the samples are made
        claim_file(output, overwrite=overwrite, is_ours=is_result)
    if infinity is not None and not intervals:
        raise UsageError("--infinity is made of the rows that --no-intervals does not keep")
    how = Uncertainty(infinity=infinity) if intervals else None
    changes = [text for text in settings or [] if "." in text.partition("=")[0]]
    options = settings_from([text for text in settings or [] if text not in changes])
    run = _run_in(source, changes)
    named = load_protocol(protocol)
    if output is None and run is None:
        output = _beside(source, named)
        claim_file(output, overwrite=overwrite, is_ours=is_result)
    if report and named.kind == "clips":
        raise UsageError("--report shows pictures, not clips", fix="leave it out; grid.gif shows the clips")
    judging: dict[str, Any] = {"protocol": named, "reference": reference, "num": num, "network": network}
    judging |= {} if controls is None else {"controls": controls}
    given = {"steps": steps, "guidance_scale": guidance_scale, "sampler": sampler, "checkpoint": checkpoint}
    sampling = given_once({**given, "ema": ema}, options)
    varied = None if sweep is None else varied_setting(sweep, sampling)
    if varied is not None and (run is None or output is not None or report or compare):
        raise UsageError(OF_ONE, fix="`genzoo compare RUN --output FOLDER` shows a run's sweep")
    with connected() as world, Progress() as progress:
        judging["settings"] = Settings(
            chosen_device(device), batch_size, progress=progress, world=world, intervals=how
        )
        if varied is not None and run is not None:
            sampling |= {"seed": seed, "weights": model_weights, "network_weights": weights}
            rows = judge_sweep(run, varied, unguided, judging | sampling)
            if world.is_first:
                typer.echo(sweep_text(rows, as_json=as_json))
            return
        if run is None:
            sampling |= {"unguided": True} if unguided else {}
            result = evaluate_files(source, weights=weights, unused=sampling, **judging)
        else:
            sampling |= {"seed": seed, "weights": model_weights}
            if unguided:
                evaluate_run(run, network_weights=weights, **judging, **(sampling | {"guidance_scale": 1.0}))
            result = evaluate_run(run, network_weights=weights, **judging, **sampling)
    if not world.is_first:
        return
    target = claim_file(output or _within(run, result), overwrite=overwrite, is_ours=is_result)
    result.save(target)
    typer.echo(f"result: {target}", err=True)
    if report:
        page = claim_file(target.with_suffix(".html"), overwrite=overwrite, is_ours=is_page)
        typer.echo(f"report: {write_report(result, named, source, run, reference, page)}", err=True)
    everyone = {str(target): result, **others}
    typer.echo(result.to_json().rstrip() if as_json else _tables(result, named, everyone))


def _tables(result: EvaluationResult, protocol: Protocol, everyone: Mapping[str, EvaluationResult]) -> str:
    """The numbers, then the papers', then those of other results."""
    from genzoo.evaluation.tables import comparison_table, paper_table, result_table

    parts = [result_table(result)]
    if protocol.papers:
        parts.append(paper_table(result, protocol))
    if len(everyone) > 1:
        parts.append(comparison_table(everyone))
    return "\n\n".join(parts)


def _run_in(source: Path, changes: Sequence[str]) -> Run | None:
    from genzoo.api.run import load_run
    from genzoo.api.runs.open_file import open_file
    from genzoo.pretrained.hub_runs import is_hub_run

    named = is_shipped(source) or is_hub_run(source)
    is_run = named or (source / "recipe.yaml").is_file() or open_file(source) is not None
    if not is_run and changes:
        raise UsageError(f"{changes[0]!r} changes a run's data, and {source} is no run", fix="leave it out")
    return load_run(source, changes) if is_run else None


def _beside(source: Path, protocol: Protocol) -> Path:
    """Where the result of files goes when no place is named."""
    return beside(source.with_suffix("") if source.is_file() else source, f".{protocol.name}.json")


def _within(run: Run | None, result: EvaluationResult) -> Path:
    """Where the result of a run goes when no place is named."""
    assert run is not None
    return run.folder / "evaluation" / f"{result.protocol}-{result.generated['folder']}.json"


def write_report(
    result: EvaluationResult,
    protocol: Protocol,
    source: Path,
    run: Run | None,
    reference: Path | None,
    target: Path,
) -> Path:
    """The HTML page about a result. A reference that holds only statistics has no pictures to show."""
    from genzoo.data.picture_sets import DatasetPictures, PictureSet, Subset, open_pictures
    from genzoo.evaluation.reference import is_adm_reference, read_adm_reference
    from genzoo.evaluation.report import build_report

    images = open_pictures(source if run is None else run.folder / "evaluation" / result.generated["folder"])
    images = Subset(images, range(result.generated["num"]))
    real: PictureSet | None
    if reference is None:
        real = DatasetPictures(run.dataset()) if run is not None else None
    else:
        real = read_adm_reference(reference)[1] if is_adm_reference(reference) else open_pictures(reference)
    curves = None if run is None else run.folder / "metrics.jsonl"
    return write_file(target, build_report(result, protocol, images, real, curves))
