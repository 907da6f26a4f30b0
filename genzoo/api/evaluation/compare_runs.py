"""Runs, folders of samples and result files, opened for a comparison."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genzoo.core.errors import DataError, GenzooError, MissingDependencyError, UsageError
from genzoo.core.paths import named
from genzoo.evaluation.comparison.curves import Curve, Reached, epochs_to_reach, read_curves
from genzoo.evaluation.comparison.rows import Row, Table, as_data, higher_is_better, tables_of
from genzoo.evaluation.result import EvaluationResult, is_result, load_result

if TYPE_CHECKING:
    from genzoo.evaluation.comparison.plots import Plot

SHOWN = 10  # samples of each row
TOLD = ("guidance_scale", "weights", "ema", "checkpoint", "sampler", "steps", "precision", "seed")
"""What tells results of one run apart, in their labels."""
EVALUATED = "evaluation/"


@dataclass(frozen=True)
class Comparison:
    """What `compare_runs` found.   reached: EP@k -> run -> epochs.   notes: what was left out, and why."""

    tables: Sequence[Table]
    curves: Sequence[Curve] = ()
    reached: Mapping[str, Mapping[str, Reached]] = field(default_factory=dict)
    notes: Sequence[str] = ()

    def to_data(self) -> dict[str, Any]:
        """For JSON."""
        epochs = {
            name: {
                run: {"epochs": one.epochs, "between": one.between, "until": one.until}
                for run, one in each.items()
            }
            for name, each in self.reached.items()
        }
        return {
            "genzoo_comparison": 1,
            "tables": as_data(self.tables),
            "epochs_to": epochs,
            "notes": list(self.notes),
        }

    @property
    def rows(self) -> list[Row]:
        """Those of all tables."""
        return [row for table in self.tables for row in table.rows]


def compare_runs(
    sources: Sequence[str | Path], *, protocol: str | None = None, reach: Mapping[str, float] | None = None
) -> Comparison:
    """Set the results of runs, of folders of samples and of result files side by side.

    protocol: only results of this one.   reach: metric -> value, for the epochs until it is reached, from the
    evaluations in the runs' logs.   Raises UsageError for a source without results, DataError for damage.
    """
    rows: list[Row] = []
    curves: list[Curve] = []
    reached: dict[str, dict[str, Reached]] = {}
    missing: dict[str, list[UsageError]] = {}
    names = _labels([Path(source) for source in sources])
    for name, source in names.items():
        found = _results_of(source, protocol)
        rows += _labelled(name, source, found)
        own = read_curves(name, source / "metrics.jsonl") if source.is_dir() else []
        curves += own
        for metric, value in (reach or {}).items():
            try:
                key, when = _epochs(source, own, metric, value)
            except UsageError as error:  # that run alone: others may have logged it
                missing.setdefault(metric, []).append(error)
                continue
            reached.setdefault(key, {})[name] = when
    if not rows and not curves:
        raise UsageError(
            f"{', '.join(map(str, names.values()))}: there are no results to compare",
            fix="`genzoo evaluate` makes them",
        )
    for errors in missing.values():
        if len(errors) == len(names):
            raise errors[0]
    notes = [] if rows else ["no result of genzoo evaluate: curves alone are compared"]
    notes += [error.what for errors in missing.values() for error in errors]
    return Comparison(tables_of(rows) if rows else [], curves, reached, notes)


def _labels(sources: Sequence[Path]) -> dict[str, Path]:
    """A short name for each source; as much of its path as tells them apart."""
    if len({source.resolve() for source in sources}) < len(sources):
        raise UsageError("one source is named twice")
    places = [named(source) for source in sources]
    names = [str(place) for place in places]
    for depth in range(1, 1 + max((len(place.parts) for place in places), default=1)):
        names = ["/".join(place.parts[-depth:]) for place in places]
        if len(set(names)) == len(names):
            break
    return {name.removesuffix(".json"): source for name, source in zip(names, sources, strict=True)}


def _results_of(source: Path, protocol: str | None) -> list[tuple[Path, EvaluationResult]]:
    """Results of a file, of a run's evaluation/, or of a folder: in it, or beside it."""
    if source.is_file():
        paths = [source]
        if not is_result(source):
            raise DataError(f"{source} is not a result of genzoo evaluate")
    elif source.is_dir():
        place = named(source)
        near = [path for path in place.parent.glob("*.json") if path.name.startswith(f"{place.name}.")]
        places = [*source.glob("*.json"), *(source / "evaluation").glob("*.json"), *near]
        during = {path for path in places if path.name.startswith("step_")}
        last = sorted(during)[-1:] if len(places) == len(during) else []
        paths = [path for path in [*sorted(set(places) - during), *last] if is_result(path)]
    else:
        raise UsageError(f"there is no run, folder or file {source}")
    found = [(path, load_result(path)) for path in paths]
    return [(path, result) for path, result in found if protocol in (None, result.protocol)]


def _labelled(name: str, source: Path, found: Sequence[tuple[Path, EvaluationResult]]) -> list[Row]:
    """Rows of one source; several of one protocol are told apart by how their samples were made."""
    rows: list[Row] = []
    for path, result in sorted(found, key=lambda one: [_order(one[1].sampling.get(key)) for key in TOLD]):
        alike = [other for _, other in found if other.protocol == result.protocol]
        told = [key for key in TOLD if len({str(other.sampling.get(key)) for other in alike}) > 1]
        said = ", ".join(f"{_SHORT.get(key, key)} {result.sampling.get(key, 'not stated')}" for key in told)
        label = f"{name} ({said})" if said else name
        while any(row.label == label and row.result.protocol == result.protocol for row in rows):
            label += f" [{path.stem}]"
        rows.append(Row(label, result, name, _pictures(source, path, result)))
    return rows


def _order(value: Any) -> tuple[int, float, str]:
    """Numbers by size, before words."""
    if isinstance(value, int | float):
        return 0, float(value), ""
    return 1, 0.0, str(value)


_SHORT = {"guidance_scale": "guidance"}


def _pictures(source: Path, path: Path, result: EvaluationResult) -> Path | None:
    folder = result.generated.get("folder")
    if isinstance(folder, str) and (path.parent / Path(folder).name).is_dir():
        return path.parent / Path(folder).name
    return source if source.is_dir() and not (source / "recipe.yaml").is_file() else None


def _epochs(source: Path, curves: Sequence[Curve], metric: str, value: float) -> tuple[str, Reached]:
    """EP@k of one run, named with all that it depends on."""
    points = next((curve.points for curve in curves if curve.name == f"{EVALUATED}{metric}"), ())
    steps = sorted((source / "evaluation").glob("step_*.json"))
    if not points or not steps:
        logged = sorted(curve.name.removeprefix(EVALUATED) for curve in curves if EVALUATED in curve.name)
        raise UsageError(
            f"{source} has no evaluations of {metric} in its log",
            why=f"logged: {', '.join(logged) or 'none'}",
            fix="a recipe's evaluation: section makes them during training",
        )
    result = load_result(steps[-1])
    size = result.reference.get("num")
    if not isinstance(size, int) or size < 1:
        raise UsageError(f"{steps[-1]} does not say how many training pictures there are")
    guidance = result.sampling.get("guidance_scale")
    said = "default" if guidance is None else "unguided" if guidance == 1 else f"guidance{guidance:g}"
    count, average = result.generated.get("num"), result.sampling.get("weights", "weights not stated")
    better = higher_is_better(metric)
    found = epochs_to_reach(points, value, per_epoch=size, higher_is_better=better)
    return f"EP@{metric}{count}_{said}_{average}{'>' if better else '<'}={value:g}", found


def plots_of(found: Comparison) -> tuple[list[Plot], list[str]]:
    """All plots, and why there are none when matplotlib is absent."""
    from genzoo.evaluation.comparison.plots import curve_plots, sweep_plots

    order = [*(row.source for row in found.rows), *(curve.run for curve in found.curves)]
    try:
        return [*curve_plots(found.curves, order), *sweep_plots(found.rows, order)], []
    except MissingDependencyError as error:
        return [], [f"no plots: {error.what}; {error.fix}"]


def grids_of(rows: Sequence[Row]) -> dict[str, bytes]:
    """The first samples of each row whose pictures are at hand, as one PNG: column i is sample i of each."""
    import numpy as np
    import torch
    from PIL import Image

    from genzoo.data.picture_sets import open_pictures
    from genzoo.pictures.grid import make_grid

    grids = {}
    for row in rows:
        if row.pictures is None:
            continue
        try:
            pictures = open_pictures(row.pictures)
            shown = [pictures.read(index) for index in range(min(SHOWN, len(pictures)))]
        except GenzooError:  # clips, or samples that were moved away: the numbers stand without them
            continue
        size = shown[0].shape[1], shown[0].shape[0]
        alike = np.stack([np.asarray(Image.fromarray(picture).resize(size)) for picture in shown])
        grid = make_grid(torch.from_numpy(alike).movedim(-1, 1), columns=SHOWN, min_cell=64)
        buffer = io.BytesIO()
        grid.image.save(buffer, "PNG", optimize=True)
        grids[row.label] = buffer.getvalue()
    return grids
