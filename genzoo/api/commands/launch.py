"""`genzoo launch`: the script of a training for an existing scheduler."""

from __future__ import annotations

import re
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from genzoo.api.commands.arguments import AsJson, Overrides, Overwrite
from genzoo.api.commands.terminal import print_json
from genzoo.core.claims import claim_file


class Where(str, Enum):
    """What the script is for."""

    torchrun = "torchrun"
    slurm = "slurm"
    kubernetes = "kubernetes"
    skypilot = "skypilot"


def launch_command(
    where: Annotated[Where, typer.Argument(help="what the script is for")],
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="a recipe's path, or a shipped one's name")],
    overrides: Overrides = None,
    run: Annotated[str | None, typer.Option(help="folder of the run; runs/NAME when left out")] = None,
    nodes: Annotated[int, typer.Option(min=1, help="machines")] = 1,
    gpus: Annotated[int, typer.Option(min=1, help="of each machine")] = 8,
    cpus: Annotated[int, typer.Option(min=1, help="cores of each machine")] = 64,
    time: Annotated[str, typer.Option(help="limit of a Slurm job")] = "24:00:00",
    image: Annotated[str | None, typer.Option(help="container image, for kubernetes")] = None,
    claim: Annotated[str | None, typer.Option(help="volume claim, for kubernetes; at /work")] = None,
    accelerator: Annotated[str, typer.Option(help="kind of GPU, for skypilot")] = "H100",
    output: Annotated[str | None, typer.Option("--output", "-o", help="the script's file")] = None,
    overwrite: Overwrite = False,
    only_print: Annotated[bool, typer.Option("--print", help="print the script and write nothing")] = False,
    as_json: AsJson = False,
) -> None:
    """Write a script that trains a recipe on several GPUs or machines; you submit it yourself."""
    from genzoo.api.launching.clusters import kubernetes_yaml, skypilot_yaml
    from genzoo.api.launching.slurm import slurm_script
    from genzoo.api.launching.torchrun import Job, torchrun_script
    from genzoo.core.files import write_file
    from genzoo.core.reading import read_text
    from genzoo.core.recipe import load_recipe

    loaded = load_recipe(recipe, overrides or [])
    folder = run or f"runs/{loaded.name}"
    job = Job(
        name=re.sub(r"[^a-z0-9]+", "-", loaded.name.lower()).strip("-") or "train",
        command=[recipe, *(overrides or []), "--output", folder],
        logs=f"{folder}-logs",
        nodes=nodes,
        gpus=gpus,
        cpus=cpus,
        workers=int((loaded.data.get("train") or {}).get("num_workers") or 0),
    )
    texts = {
        Where.torchrun: lambda: torchrun_script(job),
        Where.slurm: lambda: slurm_script(job, time=time),
        Where.kubernetes: lambda: kubernetes_yaml(job, image=image, claim=claim),
        Where.skypilot: lambda: skypilot_yaml(job, accelerator=accelerator),
    }
    text = texts[where]()
    if only_print:
        print_json({"script": text}) if as_json else typer.echo(text, nl=False)
        return
    suffix = "yaml" if where in (Where.kubernetes, Where.skypilot) else "sh"
    path = Path(output or f"{loaded.name}.{where.value}.{suffix}")
    claim_file(path, overwrite=overwrite, is_ours=lambda one: read_text(one).rstrip() == text.rstrip())
    write_file(path, text)
    start = {
        Where.torchrun: f"bash {path}" if nodes == 1 else f"HEAD=FIRST_MACHINE bash {path}, on each machine",
        Where.slurm: f"sbatch {path}",
        Where.kubernetes: f"kubectl apply -f {path}",
        Where.skypilot: f"sky launch {path}",
    }
    if as_json:
        print_json({"path": str(path), "start": start[where]})
        return
    typer.echo(f"{path}: start it with `{start[where]}`; the same again goes on where the run was")
