"""The `sample` command: what to sample, from options and KEY=VALUEs, and the folder it goes to."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from genzoo.api.commands import completion
from genzoo.api.commands.arguments import (
    AsJson,
    Device,
    asks_for_rows,
    read_controls,
    read_labels,
    require_run,
    settings_from,
)
from genzoo.api.commands.terminal import load_torch, print_json, written
from genzoo.api.sampling.prompt_list import PROMPTS, read_prompt_list, sample_list_to
from genzoo.core.errors import UsageError
from genzoo.core.processes import World
from genzoo.core.progress import Progress
from genzoo.core.wording import counted

USUAL_NUM = 16
PLACES = ("num", "seed", "batch_size", "device", "checkpoint", "out")
"""Options that say how many, where and how fast, and not what the samples are like."""


def sample_command(
    run: Annotated[
        str,
        typer.Argument(
            metavar="RUN", help="folder of a run, or a file of weights", autocompletion=completion.runs
        ),
    ],
    options: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]...",
            help="what and how to sample: class_labels=[1,2], sampler=ddim, clip_format=mp4, ...;"
            " the options below too: num=16",
        ),
    ] = None,
    prompt: Annotated[
        list[str] | None, typer.Option(help="what to show, for models of captions; several for several")
    ] = None,
    prompts: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="prompts, one a line: a folder each of --num, and prompts.json"),
    ] = None,
    class_label: Annotated[
        list[str] | None,
        typer.Option(
            "--class",
            metavar="LABEL",
            help="a name, its first words or a number for all; 1,2,3 or several --class for several",
        ),
    ] = None,
    control: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[NAME=]PICTURE",
            help="extracted already; control_from=PHOTO extracts it; several for several runs",
        ),
    ] = None,
    num: Annotated[
        int | None,
        typer.Option("--num", "--num-samples", min=1, help="how many; torchrun takes the longer name only"),
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(
            "--out",
            "--output",
            "-o",
            help="folder for the pictures; one below the run for each set of options if left out",
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="0 when left out; picture i depends on the seed and on i only")
    ] = None,
    guidance_scale: Annotated[float | None, typer.Option(help="how strongly to follow the condition")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="sampler steps")] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="pictures in memory at once; 64 when left out")
    ] = None,
    weights: Annotated[
        str | None, typer.Option(metavar="ema|raw", help="averaged where there are, when left out")
    ] = None,
    checkpoint: Annotated[str | None, typer.Option(metavar="STEP|PATH", help="newest when left out")] = None,
    device: Device = None,
    as_json: AsJson = False,
    npz: Annotated[
        bool, typer.Option("--npz", help="also one npz of all pictures, as ADM's evaluator reads it")
    ] = False,
) -> None:
    """Sample pictures from a run; the same command again makes those that are missing."""
    require_run(run)
    if prompts is not None and prompt:
        raise UsageError("--prompt and --prompts both say what to show", fix="give one of them")
    if prompts is not None and npz:
        raise UsageError("--npz is of one folder, --prompts makes one for each prompt", fix="leave one out")
    listed = None if prompts is None else read_prompt_list(prompts)
    load_torch()
    from genzoo.api.run import load_run
    from genzoo.api.sampling.claim import default_folder
    from genzoo.api.sampling.class_names import labels_of_names
    from genzoo.api.sampling.npz import pack_samples

    named: dict[str, Any] = {
        "prompt": prompt[0] if prompt and len(prompt) == 1 else prompt or None,
        "class_labels": read_labels(class_label),
        "control": read_controls(control),
        "guidance_scale": guidance_scale,
        "steps": steps,
        "weights": weights,
    }
    named |= {"num": num, "seed": seed, "batch_size": batch_size, "device": device}
    named |= {"checkpoint": checkpoint, "out": out}
    given = given_once(named, settings_from(options or []))
    _check_types(given)
    loaded = load_run(run)
    path = loaded.checkpoint(given.pop("checkpoint", None))
    if listed is not None:
        place = Path(given.pop("out", None) or loaded.folder / "samples" / Path(str(prompts)).stem)
        with Progress() as progress:
            how = {"num": USUAL_NUM, "checkpoint": path, "progress": progress.of("sampling"), **given}
            sample_list_to(loaded.sample_to, place, listed, **how)
        made = {"folder": str(place), "prompts": str(place / PROMPTS)}
        _tell(made if as_json else f"{place}: {counted(len(listed), 'folder')}, {PROMPTS}")
        return
    if given.get("class_labels") is not None:
        given["class_labels"] = labels_of_names(given["class_labels"], loaded.class_names(path))
    if given.get("num") is None and not asks_for_rows(given):
        given["num"] = USUAL_NUM
    what = {name: value for name, value in given.items() if name not in PLACES}
    folder = given.pop("out", None) or default_folder(loaded.folder, path.name, given.get("seed") or 0, what)
    with Progress() as progress:
        loaded.sample_to(folder, checkpoint=path, progress=progress.of("sampling"), **given)
    packed = pack_samples(Path(folder), given.get("num")) if npz else None
    if npz and packed is None:
        typer.echo("the npz is written by the process that finds every picture made", err=True)
    if as_json:
        _tell(written(Path(folder)))
        return
    if packed is not None:
        _tell(str(packed))
    films = sorted(path.name for path in Path(folder).glob("grid.*") if path.suffix != ".png")
    _tell(f"{folder}: {', '.join(['samples.json', 'grid.png', *films])}")


def _tell(said: str | dict[str, Any]) -> None:
    """Print words or JSON, in the first of several processes."""
    if not World.current().is_first:
        return
    if isinstance(said, dict):
        print_json(said)
        return
    # a name may hold bytes that are no UTF-8, and a terminal takes none
    typer.echo(said.encode("utf-8", "replace").decode())


def given_once(named: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Options and KEY=VALUEs together, None as not given. Raises UsageError for two values of one."""
    options = {name: value for name, value in named.items() if value is not None}
    for name in options.keys() & settings.keys():
        # `--checkpoint 4` is text, and checkpoint=4 a number
        if settings[name] != options[name] and str(settings[name]) != str(options[name]):
            raise UsageError(
                f"{name} is given twice: {options[name]!r} as an option, and {name}={settings[name]}",
                fix="give it once",
            )
    return {**settings, **options}


def _check_types(given: Mapping[str, Any]) -> None:
    """Options that sampling itself takes; those of the model are checked against the model."""
    from genzoo.api.sampling.options import refuse_misfits
    from genzoo.api.sampling.sample_run import sample_run_to
    from genzoo.core.signatures import Parameter, parameters

    known = {**parameters(sample_run_to), "out": Parameter(str | None, False)}
    unset = [name for name, value in given.items() if value is None and name in known]
    refuse_misfits({name: value for name, value in given.items() if name not in unset}, known)
    for own in ("run", "folder", "world", "progress"):
        if own in given:
            raise UsageError(f"sampling has no option {own!r} here", fix="the folder is --out")
    for name in ("num", "batch_size", "block_size"):
        if isinstance(given.get(name), int) and given[name] < 1:
            raise UsageError(f"{name} is {given[name]}; it is at least 1")
