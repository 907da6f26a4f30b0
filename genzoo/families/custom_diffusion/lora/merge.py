"""`merge_loras`: LoRA files of one base in, one LoRA of the sum of their ranks and a report out."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from genzoo.core.errors import DataError, UsageError, WeightsError
from genzoo.core.files import write_folder
from genzoo.families.custom_diffusion.data.captions import default_captions
from genzoo.families.custom_diffusion.edit.text_models import transformer_class
from genzoo.families.custom_diffusion.files.base_weights import part_of
from genzoo.families.custom_diffusion.files.report import Report
from genzoo.families.custom_diffusion.files.write_layouts import write_new_file
from genzoo.families.custom_diffusion.lora.changes import Change, LoraFile, combined
from genzoo.families.custom_diffusion.lora.names import ENCODERS, base_modules
from genzoo.families.custom_diffusion.lora.pipeline import PipelineParts, check_lora_output
from genzoo.families.custom_diffusion.lora.read import is_lora, read_lora
from genzoo.families.custom_diffusion.lora.record import MAX_ROWS, Parts, changed, input_group, record_inputs
from genzoo.families.custom_diffusion.lora.solve import (
    RowFactor,
    average,
    merge_changes,
    row_factor,
    squares,
)
from genzoo.families.custom_diffusion.lora.write import (
    check_base_output,
    diffusers_lora_bytes,
    kohya_lora_bytes,
    peft_files,
    write_merged_base,
)
from genzoo.families.custom_diffusion.merge.inputs import hash_files
from genzoo.families.custom_diffusion.merge.low_rank import exact_factors
from genzoo.pretrained.text_to_image import load_parts

METHODS = ("least_squares", "average", "sum")
NUM_KEPT = 8
FILE = "lora.safetensors"


@dataclass(frozen=True)
class LoraReport(Report):
    """residual: of each file by method, |(D - s D_i) X^T| over |s D_i X^T| on its own inputs X."""

    base: str
    method: str
    sources: list[str]
    layouts: list[str]
    strengths: list[float]
    prompts: list[list[str]]
    residual: dict[str, list[float]]
    num_modules: int
    rank: int
    num_rows: int
    num_full: int

    def lines(self) -> list[str]:
        """For a terminal."""
        text = [
            f"{len(self.sources)} LoRA files merged by {self.method.replace('_', ' ')} into "
            f"{self.num_modules} "
            f"modules of {self.base}, rank up to {self.rank}",
            "what each loses of its change, at its own inputs (0 nothing, 1 as much as all of it):",
        ]
        for number, source in enumerate(self.sources):
            shown = ", ".join(
                f"{method.replace('_', ' ')} {shares[number]:.3f}" for method, shares in self.residual.items()
            )
            text.append(f"  {source} x {self.strengths[number]:g} ({self.layouts[number]}): {shown}")
        if self.num_full:
            text.append(
                f"in {self.num_full} modules the recorded rows ({self.num_rows} a file at most) reach the "
                "layer's width: there least squares is little better than the average"
            )
        return text


@dataclass(frozen=True)
class MergedLoras:
    """changes: by module.   path: where they were written, if anywhere."""

    lora: LoraFile
    report: LoraReport
    path: Path | None


def merge_loras(
    files: Sequence[str | Path],
    *,
    base: str | Path,
    prompts: Sequence[str | Sequence[str]] | None = None,
    strengths: Sequence[float] | None = None,
    method: str = "least_squares",
    keep: float = 0.1,
    lamb: float = 1e-4,
    output: str | Path | None = None,
    as_base: bool = False,
) -> MergedLoras:
    """Merge LoRA files of any layout so that each acts on its own inputs as it does alone, as far as that
    goes.

    prompts: what calls each concept; read from the files where they say.   strengths: 1 each when left out.
    method: "average" and "sum" of the changes by name.   keep: how much inputs under other prompts shall stay
    as they are, as a share of the concepts' own weight.   lamb: the ridge, as a share of the mean of M's
    diagonal.   output: a file that ends in .safetensors, kohya's layout, or a new folder with the report.
    as_base: the folder is a copy of the base with the merge in its weights, which needs no LoRA any more.
    Inputs are never written. Raises UsageError, WeightsError, CheckpointError, DataError.
    """
    started = time.perf_counter()
    if output is not None and Path(output).exists():
        raise UsageError(f"{output} exists already", fix="name another output, or remove it")
    if as_base:
        check_base_output(output, base)
    elif part_of(base) == "transformer":
        check_lora_output(transformer_class(base), output)
    if method not in METHODS:
        raise UsageError(f"method={method!r} is not known", fix=f"one of {', '.join(METHODS)}")
    paths, hashes = _distinct(files)
    modules = base_modules(base)
    loras = [read_lora(path, modules) for path in paths]
    given = _strengths(strengths, len(loras))
    texts = _prompts(loras, prompts)
    merged, residual, num_full = _merge(base, loras, given, texts, method=method, keep=keep, lamb=lamb)
    if [hash_files(path) for path in paths] != hashes:
        raise DataError("a LoRA file changed on the disk during the merge", fix="merge again")
    report = LoraReport(
        base=Path(base).name,
        method=method,
        sources=[path.name for path in paths],
        layouts=[lora.layout for lora in loras],
        strengths=given,
        prompts=texts,
        residual=residual,
        num_modules=len(merged),
        rank=max(change.rank for change in merged.values()),
        num_rows=MAX_ROWS,
        num_full=num_full,
        seconds=time.perf_counter() - started,
    )
    lora = LoraFile(merged, "kohya", trigger=", ".join(text[0] for text in texts))
    if as_base and output is not None:
        return MergedLoras(lora, report, write_merged_base(lora, base, output, _reports(report)))
    return MergedLoras(lora, report, _write(lora, report, modules, output, base))


def only_loras(paths: Sequence[str | Path]) -> bool:
    """Whether all of some files are LoRAs, or none. Raises UsageError for a mixture."""
    loras = [path for path in paths if is_lora(path)]
    others = [path for path in paths if path not in loras]
    if loras and others:
        raise UsageError(
            f"{others[0]} is a concept and {loras[0]} a LoRA",
            fix="`genzoo convert-concept CONCEPT -o OUT --to kohya` writes a concept as a LoRA: merge its "
            "lora.safetensors",
        )
    return bool(loras)


def _merge(
    base: str | Path,
    loras: Sequence[LoraFile],
    strengths: Sequence[float],
    texts: Sequence[Sequence[str]],
    *,
    method: str,
    keep: float,
    lamb: float,
) -> tuple[dict[str, Change], dict[str, list[float]], int]:
    names = sorted({name for lora in loras for name in lora.changes})
    groups = {input_group(name): name for name in names}
    parts: Parts = PipelineParts(base) if part_of(base) == "transformer" else load_parts(base)
    recorded = []
    for lora, strength, prompts in zip(loras, strengths, texts, strict=True):
        with changed(parts, lora.changes, strength):
            recorded.append(record_inputs(parts, groups, prompts))
    others = record_inputs(parts, groups, default_captions(NUM_KEPT)) if keep > 0 else {}
    merged, factors = {}, {}
    sums = {name: torch.zeros(2, len(loras), dtype=torch.float64) for name in METHODS}
    full = 0
    for name in names:
        holders = [i for i, lora in enumerate(loras) if name in lora.changes]
        group = input_group(name)
        rows = [_rows(recorded[i], group, name) for i in range(len(loras))]
        if group not in factors:
            factors[group] = row_factor_of(rows, others.get(group), keep, lamb)
        full += sum(len(one) for one in rows) >= rows[0].shape[1]
        changes = [loras[i].changes[name] for i in holders]
        answers, lost = merged_module(changes, [strengths[i] for i in holders], holders, rows, factors[group])
        for key, shares in lost.items():
            sums[key][:, holders] += shares
        merged[name] = _stored(answers[method])
    residual = {
        key: (left / needed.clamp_min(1e-300)).sqrt().tolist() for key, (left, needed) in sums.items()
    }
    return merged, residual, full


def merged_module(
    changes: Sequence[Change],
    strengths: Sequence[float],
    holders: Sequence[int],
    rows: Sequence[Tensor],
    factor: RowFactor,
) -> tuple[dict[str, Change], dict[str, Tensor]]:
    """One module by every method, and (2, n) of each: what its n changes lose, and what they want, squared.

    holders: which files the changes are of.   rows: of all files.
    """
    answers = {
        "least_squares": merge_changes(changes, factor=factor, strengths=strengths, pieces=holders),
        "average": average(changes, strengths, total=float(len(rows))),
        "sum": average(changes, strengths, total=1.0),
    }
    lost = {
        key: torch.stack(
            [
                torch.stack(squares(answer, change, strength, rows[i]))
                for change, strength, i in zip(changes, strengths, holders, strict=True)
            ],
            1,
        )
        for key, answer in answers.items()
    }
    return answers, lost


def row_factor_of(rows: Sequence[Tensor], others: Tensor | None, keep: float, lamb: float) -> RowFactor:
    """Of all concepts' rows, those of concepts without this module too: there nothing shall change."""
    weights = [1.0] * len(rows)
    pieces = list(rows)
    total = sum(float(one.double().square().sum()) for one in rows)
    if others is not None and keep > 0:
        pieces.append(others)
        weights.append(keep * total / max(float(others.double().square().sum()), 1e-300))
    return row_factor(pieces, weights, lamb * total / rows[0].shape[1])


def _rows(recorded: dict[str, Tensor], group: str, name: str) -> Tensor:
    if group not in recorded:
        raise WeightsError(
            f"nothing was recorded for {name}", why="the base does not call it while it samples"
        )
    return recorded[group]


def _stored(change: Change) -> Change:
    if change.up is not None and change.down is not None:
        return combined(change.up, change.down)
    return combined(*exact_factors(change.delta))


def _distinct(files: Sequence[str | Path]) -> tuple[list[Path], list[str]]:
    paths = [Path(file) for file in files]
    if not paths:
        raise UsageError("there is nothing to merge", fix="name LoRA files")
    absent = [path for path in paths if not path.exists()]
    if absent:
        raise WeightsError(f"there is no file {absent[0]}", fix="check the path")
    hashes = [hash_files(path) for path in paths]
    for number, one in enumerate(hashes):
        if one in hashes[:number]:
            first = paths[hashes.index(one)]
            raise UsageError(f"{first.name} and {paths[number].name} are one file", fix="give each once")
    return paths, hashes


def _strengths(given: Sequence[float] | None, count: int) -> list[float]:
    strengths = [1.0] * count if given is None else [float(one) for one in given]
    if len(strengths) != count:
        raise UsageError(f"{len(strengths)} strengths for {count} files", fix="one for each")
    for strength in strengths:
        if strength == 0 or strength != strength or abs(strength) == float("inf"):
            raise UsageError(f"{strength} is no strength", fix="such as 0.8, or leave the file out")
    return strengths


def _prompts(loras: Sequence[LoraFile], given: Sequence[str | Sequence[str]] | None) -> list[list[str]]:
    if given is not None and len(given) != len(loras):
        raise UsageError(f"{len(given)} phrases for {len(loras)} files", fix="give one for each")
    found = []
    for number, lora in enumerate(loras):
        one: str | Sequence[str] | None = lora.trigger if given is None else given[number]
        if not one:
            raise UsageError(
                f"{lora.path.name if lora.path else 'a LoRA'} does not say which words call it",
                fix='--phrase "a sks dog", one for each file in order',
            )
        phrases = [one] if isinstance(one, str) else list(one)
        found.append([text for phrase in phrases for text in (phrase, f"photo of a {phrase}")])
    return found


def _write(
    lora: LoraFile,
    report: LoraReport,
    modules: dict[str, tuple[int, ...]],
    output: str | Path | None,
    base: str | Path,
) -> Path | None:
    if output is None:
        return None
    path = Path(output)
    if part_of(base) == "transformer":
        return _write_for_transformer(lora, report, path)
    content = kohya_lora_bytes(lora, modules, name=path.stem, base=str(base))
    if path.suffix == ".safetensors":
        return write_new_file(path, content)
    return write_folder(path, {FILE: content, **_reports(report)})


def _write_for_transformer(lora: LoraFile, report: LoraReport, path: Path) -> Path:
    """A file for `pipeline.load_lora_weights`, or PEFT's folder."""
    if path.suffix == ".safetensors":
        return write_new_file(path, diffusers_lora_bytes(lora.changes))
    words = [name for name in lora.changes if name.startswith(ENCODERS)]
    if words:
        raise UsageError(
            f"PEFT's folder is of one model, and the files change a text encoder too ({words[0]})",
            fix="an output that ends in .safetensors, or --as-base",
        )
    return write_folder(path, {**peft_files(lora.changes), **_reports(report)})


def _reports(report: LoraReport) -> dict[str, str]:
    return {
        "report.json": json.dumps(report.kept(), indent=2) + "\n",
        "report.txt": "\n".join(report.lines()) + "\n",
    }
