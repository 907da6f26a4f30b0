"""The `doctor` command: what works on this machine, and why the rest does not."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import typer

from genzoo.api.commands.arguments import AsJson
from genzoo.api.commands.terminal import print_json
from genzoo.core.cache_folder import cache_folder
from genzoo.core.progress import doing

Level = Literal["ok", "note", "broken"]


class Finding(NamedTuple):
    """One line of the report. broken: genzoo cannot work like this; note: an optional part is absent."""

    topic: str
    level: Level
    text: str


REQUIRED = (
    "torch", "torchvision", "diffusers", "transformers", "accelerate", "omegaconf", "safetensors",
    "huggingface_hub", "typer", "rich", "einops", "pillow", "numpy", "tensorboard",
)  # fmt: skip
OPTIONAL = {
    "av": "video",
    "torch-fidelity": "eval",
    "scipy": "eval",
    "peft": "lora",
    "datasets": "datasets",
    "fsspec": "remote",
}


def doctor_command(as_json: AsJson = False) -> None:
    """Say what works on this machine, and why the rest does not."""
    with doing("importing every part"):
        findings = examine()
    if as_json:
        print_json([finding._asdict() for finding in findings])
    else:
        width = max(len(finding.topic) for finding in findings)
        for topic, level, text in findings:
            typer.echo(f"{level:<6}  {topic:<{width}}  {text}")
    raise typer.Exit(4 if any(finding.level == "broken" for finding in findings) else 0)


def examine() -> list[Finding]:
    """All findings; a check that fails in an unforeseen way is itself a finding."""
    findings: list[Finding] = []
    for check in (_versions, _torch, _scans, _compiler, _folders, _assets, _names, _extras, _stock_scan):
        findings += _guarded(check)
    return findings


def _guarded(check: Callable[[], Iterator[Finding]]) -> list[Finding]:
    try:
        return list(check())
    except Exception as error:  # the doctor reports illness, it does not catch it
        topic = check.__name__.strip("_")
        return [Finding(topic, "broken", f"{type(error).__name__}: {str(error).splitlines()[:1]}")]


def _versions() -> Iterator[Finding]:
    yield Finding("python", "ok", f"{platform.python_version()} at {sys.executable}, {platform.platform()}")
    for package in ("genzoo", *REQUIRED):
        version = _version(package)
        if version is None and package == "genzoo":
            yield Finding(package, "note", "runs from its source folder; it is not installed")
        elif version is None:
            yield Finding(package, "broken", f"is not installed; pip install {package}")
        else:
            yield Finding(package, "ok", version)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _torch() -> Iterator[Finding]:
    import torch

    build = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built for the CPU"
    yield Finding("cpu", "ok", f"{os.cpu_count()} cores, {torch.get_num_threads()} threads; torch {build}")
    if not torch.cuda.is_available():
        yield Finding("gpu", "note", "none that torch can use; training and sampling run on the CPU")
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        memory = properties.total_memory / 2**30
        yield Finding("gpu", "ok", f"cuda:{index} {properties.name}, {memory:.0f} GiB")


def _scans() -> Iterator[Finding]:
    from genzoo.kernels import available_backends

    for name, reason in available_backends().items():
        yield Finding(f"scan {name}", "note" if reason else "ok", reason or "available")


def _compiler() -> Iterator[Finding]:
    found = next(
        (
            path
            for name in (os.environ.get("CC"), "cc", "gcc", "clang")
            if name and (path := shutil.which(name))
        ),
        None,
    )
    yield Finding("C compiler", "ok" if found else "note", found or "none: the cpu scan cannot be compiled")


def _folders() -> Iterator[Finding]:
    from huggingface_hub.constants import HF_HUB_CACHE

    places = {
        "kernel cache": cache_folder("kernels"),
        "hub cache": Path(HF_HUB_CACHE),
        "current folder": Path.cwd(),
    }
    for topic, path in places.items():
        existing = next(parent for parent in (path, *path.parents) if parent.exists())
        free = shutil.disk_usage(existing).free / 2**30
        writable = os.access(existing, os.W_OK)
        text = f"{path}, {free:.1f} GiB free" + ("" if writable else ", not writable")
        yield Finding(topic, "ok" if writable else "note", text)


def _assets() -> Iterator[Finding]:
    from genzoo.core.recipe_source import names_in, shipped

    for folder in ("configs", "recipes"):
        root = shipped(folder)
        if root is None:
            yield Finding(folder, "broken", "are not beside the package; install genzoo again")
        else:
            yield Finding(folder, "ok", f"{len(names_in(root))} files in {root}")
    assets = Path(__file__).resolve().parents[2] / "assets"
    for path in sorted(assets.glob("*.safetensors")):
        yield Finding(f"asset {path.stem}", "ok", f"{path.stat().st_size:,} bytes")


def _names() -> Iterator[Finding]:
    from genzoo.core.registry import REGISTRIES, unread

    for family, reason in unread().items():
        yield Finding(f"family {family}", "broken", reason)
    for kind, registry in REGISTRIES.items():
        for name in registry:
            problem = _resolve(registry, name)
            if problem:
                yield Finding(f"{kind} {name}", "note", problem)


def _resolve(registry: Any, name: str) -> str | None:
    try:
        registry.get(name)
    except Exception as error:
        return f"cannot be imported: {str(error).strip().partition(chr(10))[0]}"
    return None


def _extras() -> Iterator[Finding]:
    for package, extra in OPTIONAL.items():
        version = _version(package)
        yield Finding(
            package, "ok" if version else "note", version or f"optional; pip install 'genzoo[{extra}]'"
        )


def _stock_scan() -> Iterator[Finding]:
    from genzoo.api.commands.stock_scan import describe

    version = _version("mamba-ssm")
    level, lines = describe(version)
    for line in lines:
        yield Finding("mamba-ssm", level, line)
