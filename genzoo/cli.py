"""The command line. Heavy imports happen inside commands, so that help and listings stay quick."""

from __future__ import annotations

import io
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
import typer.core

import genzoo.api
import genzoo.app  # noqa: F401  (both read their cards)
from genzoo.api.commands import completion
from genzoo.api.commands.spelling import EitherSpelling
from genzoo.api.commands.terminal import (
    AsJson,
    AtOnce,
    Device,
    Overwrite,
    Prune,
    Workers,
    load_torch,
    log_to_terminal,
    print_json,
    report_error,
    require_run,
    settings_from,
    written,
)
from genzoo.core.errors import UsageError
from genzoo.core.plugins import load_module
from genzoo.core.processes import World, connected
from genzoo.core.progress import Progress, doing
from genzoo.core.registry import COMMANDS
from genzoo.core.wording import counted

EXIT_CODES = """Exit codes: 0 ok, 2 usage or recipe, 3 missing optional part, 4 data or weights,
5 non-finite numbers, 6 out of memory, 130/143/129 interrupted after a checkpoint.
`--debug` anywhere shows the traceback of an error. `--import MODULE` anywhere reads a module's names first:
models, tasks, data and commands of your own; installed packages declare the entry point genzoo.families."""

HELP = {"help_option_names": ["-h", "--help"]}

app = typer.Typer(
    name="genzoo",
    context_settings=HELP,
    help=f"A zoo of generative models: train, sample, compare.\n\n{EXIT_CODES}",
    no_args_is_help=True,
    add_completion=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

prepare = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
app.add_typer(prepare, name="prepare", help="Compute once what training reads again and again.")
groups: dict[str, typer.Typer] = {"": app, "prepare": prepare}
OWN_SPELLING = ("sample",)  # reads options in either spelling itself, typed as a recipe types them
added: set[str] = set()  # the registered commands that are there already

RecipeArgument = Annotated[
    str,
    typer.Argument(
        metavar="RECIPE",
        help="path of a recipe, or the name of a shipped one",
        autocompletion=completion.recipes,
    ),
]
RecipeOrRun = Annotated[
    str,
    typer.Argument(
        metavar="RECIPE|RUN",
        help="path of a recipe, the name of a shipped one, or a run, whose recipe is meant",
        autocompletion=completion.recipes,
    ),
]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="settings that replace the recipe's")
]
RunArgument = Annotated[
    str, typer.Argument(metavar="RUN", help="folder of a run", autocompletion=completion.runs)
]


def _show_version(wanted: bool) -> None:
    if wanted:
        from genzoo import __version__

        typer.echo(f"genzoo {__version__}")
        raise typer.Exit


@app.callback()
def genzoo_(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="print the version")
    ] = False,
) -> None:
    pass


@app.command("list")
def list_(
    kind: Annotated[
        str | None,
        typer.Argument(
            help="models, recipes, samplers, losses, ...; all when left out",
            autocompletion=completion.kinds,
        ),
    ] = None,
    pattern: Annotated[str | None, typer.Argument(help='a shell pattern such as "*_b4"')] = None,
    as_json: AsJson = False,
) -> None:
    """List models, recipes and every registered name."""
    from genzoo.api.recipes.listing import KINDS, describe

    kinds = [kind] if kind else list(KINDS)
    found = {kind: describe(kind, pattern or "*") for kind in kinds}
    if as_json:
        print_json({kind: dict(entries) for kind, entries in found.items()})
        return
    for name, entries in found.items():
        if entries:
            typer.echo(f"{name}:" if len(found) > 1 else "", nl=len(found) > 1)
            width = max(len(entry) for entry, _ in entries)
            typer.echo("\n".join(f"  {entry:<{width}}  {text}".rstrip() for entry, text in entries))


@app.command()
def show(
    recipe: RecipeOrRun,
    overrides: Overrides = None,
    plain: Annotated[bool, typer.Option("--plain", help="without the origin of each value")] = False,
    as_json: AsJson = False,
) -> None:
    """Print a recipe, or a run's, with every include expanded, and where each value comes from."""
    from genzoo.api.recipes.show import annotated, find

    found = find(recipe, overrides or [])
    if as_json:
        print_json({"recipe": found.data} | ({} if plain else {"origins": dict(found.origins)}))
        return
    typer.echo(found.to_yaml().rstrip() if plain else annotated(found))


@app.command()
def validate(
    recipes: Annotated[
        list[str],
        typer.Argument(metavar="RECIPE|RUN... [KEY=VALUE]...", autocompletion=completion.recipes),
    ],
    as_json: AsJson = False,
) -> None:
    """Check recipes against the code they name; every problem is listed at once."""
    from genzoo.api.recipes.named import recipe_named

    overrides = [text for text in recipes if "=" in text]
    # read first: a misspelt name is answered before anything heavy is imported
    loaded = {text: recipe_named(text, overrides) for text in recipes if "=" not in text}
    load_torch()
    from genzoo.api.recipes.plan import check_recipe

    found = {name: check_recipe(recipe) for name, recipe in loaded.items()}
    if as_json:
        print_json({name: {"ok": True, "missing": missing} for name, missing in found.items()})
        return
    for name, missing in found.items():
        typer.echo(f"{name}: ok" + (f"; you have to give {', '.join(missing)}" if missing else ""))


@app.command()
def train(
    recipe: RecipeArgument,
    overrides: Overrides = None,
    output: Annotated[
        str | None, typer.Option("--output", "-o", help="the run's folder; runs/NAME when left out")
    ] = None,
    resume: Annotated[str, typer.Option(metavar="auto|never|PATH", help="where to continue")] = "auto",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="one batch: classes, files, memory, disk, time; then stop")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Train a recipe; the same command again continues an interrupted run."""
    from genzoo.core.recipe import load_recipe

    loaded = load_recipe(recipe, overrides or [])  # first: a misspelt name is answered at once
    load_torch()
    from genzoo.api.run import train as train_run
    from genzoo.api.runs.run_report import read_report, report_lines
    from genzoo.api.training import train as training

    if dry_run:
        with Progress() as bars:
            found = training.dry_run(loaded, output=output, progress=bars.of("looking at files"))
        print_json(found.as_dict()) if as_json else typer.echo(str(found))
        raise typer.Exit(4 if found.too_many_unreadable else 0)
    run = train_run(loaded, output=output, resume=resume)
    if World.current().is_first:
        report = read_report(run)
        if as_json:
            print_json({"run": str(run.folder), "step": run.step, "report": report.get("metrics", [])})
            return
        typer.echo("\n".join([*report_lines(report), f"run: {run.folder}"]))


@app.command()
def count(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL|RUN",
            help="a name of `genzoo list models`, or a run, whose model is meant",
            autocompletion=completion.models,
        ),
    ],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="model arguments")
    ] = None,
    image_size: Annotated[
        int | None, typer.Option(min=1, help="pixels; the model's own size when left out")
    ] = None,
    paper: Annotated[bool, typer.Option("--paper", help="count as the model's paper did")] = False,
    as_json: AsJson = False,
) -> None:
    """Count parameters and multiply-adds of one forward pass."""
    from genzoo.api.recipes.listing import require_model
    from genzoo.api.recipes.named import recipe_of_run
    from genzoo.core.recipe_source import is_file

    is_run = not is_file(Path(model)) and recipe_of_run(model) is not None
    if is_run and overrides:
        raise UsageError(f"{model} is a run, whose model is as it is", fix=f"leave {overrides[0]} out")
    if not is_run and not is_file(Path(model)):
        require_model(model)
    load_torch()
    from genzoo.api.recipes.models import count as count_model
    from genzoo.api.run import load_run

    counted = load_run(model).task(device="cpu").model if is_run else model
    found = count_model(counted, image_size=image_size, paper=paper, **settings_from(overrides or []))
    found = {"model": model, **found}
    if as_json:
        print_json(found)
        return
    width = max(map(len, found))
    for key, value in found.items():
        typer.echo(f"{key:<{width}}  {f'{value:,.4f}' if isinstance(value, float) else value}")
    typer.echo(
        "params in millions, gflops in 10^9 multiply-adds" + (", as the paper counts" if paper else "")
    )


@app.command()
def convert(
    source: Annotated[str, typer.Argument(help="a weights file of another project")],
    output: Annotated[str, typer.Argument(help="folder for the new run")],
    overrides: Overrides = None,
    recipe: Annotated[
        str | None, typer.Option(help="supplies codec, sampler and task; has a default")
    ] = None,
    layout: Annotated[
        str | None, typer.Option("--from", help="whose file it is; recognised when left out")
    ] = None,
    argument: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="what the tensors cannot tell")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Turn released weights into a run that can be sampled."""
    from genzoo.core.errors import WeightsError
    from genzoo.core.paths import require_path
    from genzoo.core.recipe_source import find_recipe

    if recipe is not None:
        find_recipe(recipe)
    require_path(source, "a weights file", fix="check the path", error=WeightsError)
    load_torch()
    from genzoo.api.runs.conversion import convert as convert_weights

    options = {"recipe": recipe, "layout": layout, "arguments": settings_from(argument or [])}
    run, conversion = convert_weights(source, output, overrides=overrides or [], **options)  # type: ignore[arg-type]
    if as_json:
        entries = [{"tensor": entry, "ours": ours, "why": why} for entry, ours, why in conversion.report]
        print_json({"run": str(run.folder), "report": entries})
        return
    for entry, ours, why in conversion.report:
        typer.echo(f"{entry} -> {ours or '(not carried over)'}: {why}")
    typer.echo(f"run: {run.folder}")


@app.command()
def export(
    run: RunArgument,
    output: Annotated[str, typer.Argument(help="a new safetensors file, or a folder for layouts of several")],
    layout: Annotated[
        str | None,
        typer.Option(
            "--to", help="another project's layout, diffusers, or graphs: onnx, exported, torchscript"
        ),
    ] = None,
    client: Annotated[
        str | None, typer.Option("--for", help="a program that shall use it, such as comfyui or a1111")
    ] = None,
    weights: Annotated[str | None, typer.Option(metavar="ema|raw")] = None,
    half: Annotated[bool, typer.Option("--half", help="store 16-bit numbers")] = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Write a run's weights as one safetensors file, which `sample` and `evaluate` take like a run."""
    require_run(run)
    if client is not None and (layout is not None or half or overwrite):
        raise UsageError("--for chooses the layout itself", fix="leave --to, --half and --overwrite out")
    load_torch()
    from genzoo.api.pipelines.files import has_pipeline
    from genzoo.api.run import load_run
    from genzoo.api.runs.conversion import export as export_weights
    from genzoo.api.runs.conversion import export_for

    if client is not None:
        folder, lines = export_for(load_run(run), output, client=client, weights=weights)  # type: ignore[arg-type]
        if as_json:
            print_json({**written(folder), "how": lines})
            return
        typer.echo("\n".join([f"written: {folder}", *lines]))
        return
    opened = load_run(run)
    if layout == "diffusers" and has_pipeline(opened):
        from genzoo.api.pipelines.write import export_pipeline

        path = export_pipeline(opened, output, weights=weights, half=half)  # type: ignore[arg-type]
    else:
        options = {"layout": layout, "weights": weights, "half": half, "overwrite": overwrite}
        path = export_weights(opened, output, **options)  # type: ignore[arg-type]
    if as_json:
        print_json(written(path))
        return
    if path.is_dir():
        typer.echo(f"{path}: {', '.join(sorted(file.name for file in path.iterdir()))}")
        return
    typer.echo(f"{path}: {path.stat().st_size:,} bytes")


@app.command()
def rerun(
    run: RunArgument,
    overrides: Overrides = None,
    output: Annotated[
        str | None, typer.Option("--output", "-o", help="folder of the new run; RUN-rerun when left out")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="stop after so many steps")] = None,
    compare: Annotated[bool, typer.Option("--compare", help="print how far the losses differ")] = False,
    as_json: AsJson = False,
) -> None:
    """Train a run's own recipe again, with every change on the way, into a new folder."""
    require_run(run)
    load_torch()
    from genzoo.api.rerun import compare_losses, rerun_recipe
    from genzoo.api.run import load_run

    first = load_run(run)
    second = rerun_recipe(first, output=output, steps=steps, changes=overrides or [])
    compared = compare_losses(first, second) if compare else None
    if as_json:
        print_json({"run": str(second.folder), "losses": None if compared is None else asdict(compared)})
        return
    typer.echo(f"run: {second.folder}")
    if compared is not None:
        typer.echo(str(compared))


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Say what works on this machine, and why the rest does not."""
    from genzoo.api.commands.doctor import examine

    with doing("importing every part"):
        findings = examine()
    if as_json:
        print_json([finding._asdict() for finding in findings])
    else:
        width = max(len(finding.topic) for finding in findings)
        for topic, level, text in findings:
            typer.echo(f"{level:<6}  {topic:<{width}}  {text}")
    raise typer.Exit(4 if any(finding.level == "broken" for finding in findings) else 0)


@prepare.command(cls=EitherSpelling)
def latents(
    recipe: RecipeOrRun,
    overrides: Overrides = None,
    batch_size: AtOnce = 32,
    num_workers: Workers = 0,
    device: Device = None,
    prune: Prune = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="read every picture and every entry, and write nothing")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Encode a recipe's images into data.latent_cache; later calls redo what changed."""
    from genzoo.api.recipes.named import recipe_named

    loaded = recipe_named(recipe, overrides or [])
    load_torch()
    from genzoo.api.preparation.latents import check_latents, prepare_latents

    if verify:
        with Progress() as progress:
            check = check_latents(loaded, num_workers=num_workers, progress=progress.of("checking"))
        if as_json:
            print_json({**asdict(check), "is_whole": check.is_whole})
            raise typer.Exit(0 if check.is_whole else 4)
        typer.echo("\n".join([*check.problems(), f"{counted(check.total, 'picture')}: {check.summary()}"]))
        raise typer.Exit(0 if check.is_whole else 4)
    with connected() as world, Progress() as progress:
        report = prepare_latents(
            loaded,
            batch_size=batch_size,
            num_workers=num_workers,
            device=device,
            prune=prune,
            progress=progress.of("encoding"),
            world=world,
        )
    if not world.is_first:
        return
    for line in report.problems():
        typer.echo(line, err=True)
    if as_json:
        print_json(asdict(report))
        return
    typer.echo(
        f"{counted(report.total, 'picture')}: {report.built} encoded, {report.reused} reused,"
        f" {len(report.bad)} bad; {report.unused} old entries{f', {report.pruned} removed' if prune else ''}"
    )


def main(argv: list[str] | None = None) -> None:
    """Run the command line: errors that a user can mend take a few lines; the exit code says which kind."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    for stream in (sys.stdout, sys.stderr):  # names of files may hold bytes that are no UTF-8
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        modules, arguments = _take_imports([text for text in arguments if text != "--debug"])
        for module in modules:
            load_module(module)
        _add_registered_commands()
        if arguments[:1] == ["list"] and len(arguments) < 4 and not any(a.startswith("-") for a in arguments):
            # shells complete names with it: typer's parser alone would take twice the time of the answer
            kind, pattern = (*arguments[1:], None, None)[:2]
            list_(kind, pattern)
            return
        log_to_terminal()
        app(arguments, prog_name="genzoo")
    except BrokenPipeError:
        # the reader went away (`genzoo list | head`), and wants no message; nor may the exit flush again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except Exception as error:
        if debug:
            raise
        sys.exit(report_error(error))


def _take_imports(arguments: list[str]) -> tuple[list[str], list[str]]:
    """The modules of every `--import MODULE` and `--import=MODULE`, and the other arguments."""
    modules, others, rest = [], [], iter(arguments)
    for text in rest:
        option, equals, value = text.partition("=")
        if option != "--import":
            others.append(text)
            continue
        module = value if equals else next(rest, "")
        if not module:
            raise UsageError("--import needs the name of a module", fix="for example --import my_family")
        modules.append(module)
    return modules, others


class _LazyCommand(typer.core.TyperCommand):
    """A command of a card: only its name and help are known until it runs."""

    target = ""
    command_class: type[typer.core.TyperCommand] = EitherSpelling

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        return self.opened(info_name).make_context(info_name, args, parent=parent, **extra)

    def opened(self, name: str | None) -> Any:
        """The command itself, with its options."""
        single = typer.Typer(add_completion=False, rich_markup_mode=None)
        single.command(name=name, help=self.help, cls=self.command_class)(COMMANDS.get(self.target))
        return typer.main.get_command(single)


def _add_registered_commands() -> None:
    """Commands that families declare: "merge-things", or "prepare things" below a group."""
    for name in COMMANDS:
        group, _, last = name.rpartition(" ")
        if group not in groups:
            groups[group] = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
            app.add_typer(groups[group], name=group)
        if name not in added:
            own = typer.core.TyperCommand if name in OWN_SPELLING else EitherSpelling
            lazy = type("LazyCommand", (_LazyCommand,), {"target": name, "command_class": own})
            groups[group].command(last, cls=lazy, help=COMMANDS.help(name))(_unused)
            added.add(name)


def _unused() -> None:
    raise AssertionError("a lazy command is replaced before it runs")


if __name__ == "__main__":
    main()
