"""Plots by matplotlib: curves of runs against steps, samples and seconds, and sweeps of guidance."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from genzoo.core.optional import require
from genzoo.evaluation.comparison.curves import AXES, Curve, grouped
from genzoo.evaluation.comparison.rows import Row
from genzoo.evaluation.comparison.sweeps import guidance, sweeps_of
from genzoo.evaluation.tables import shortened

WANTED = ("loss", "held_out/loss")  # and what begins with evaluation/
LEGEND = 30  # letters of a name
DISTANCES = ("fid", "fdd", "frechet", "fvd", "kid_all", "cmmd", "mind", "jedi")  # drawn over guidance
LABELS = {"step": "steps", "samples": "samples seen", "seconds": "seconds of training"}
COLOURS = ("#2f6fdf", "#d9622b", "#2c9c69", "#a04fb8", "#b8860b", "#c23b5a", "#4a7a8c", "#7a6a58")
DARK = {"text": "#dddddd", "line": "#777777"}
LIGHT = {"text": "#222222", "line": "#999999"}


@dataclass(frozen=True)
class Plot:
    """A named figure in both themes.   svg, dark_svg, png: the bytes of files."""

    name: str
    title: str
    svg: bytes
    dark_svg: bytes
    png: bytes
    wide: bool = False


def curve_plots(curves: Sequence[Curve], order: Sequence[str] = ()) -> list[Plot]:
    """Losses, held-out losses and metrics of evaluations: one figure each, all runs, three axes.

    order: of all runs; a run has one colour in every figure.
    """
    plots, colours = [], colours_of([*order, *(curve.run for curve in curves)])
    for name, each in grouped(curves).items():
        usable = [curve for curve in each if len(curve.points) > 1]
        if (name in WANTED or name.startswith("evaluation/")) and usable:
            plots.append(
                _plot(
                    name, _title(name), lambda f, usable=usable: _draw_curves(f, usable, colours), wide=True
                )
            )
    return plots


def colours_of(names: Sequence[str]) -> dict[str, str]:
    """A colour for each name, in their order."""
    return {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(dict.fromkeys(names))}


def _title(name: str) -> str:
    said = {"loss": "training loss", "held_out/loss": "held-out loss"}
    return said.get(name, f"{name.removeprefix('evaluation/')} in training")


def _draw_curves(figure: Any, curves: Sequence[Curve], colours: Mapping[str, str]) -> None:
    for axes, place in zip(figure.subplots(1, len(AXES), sharey=True), AXES, strict=True):
        for curve in curves:
            xs, ys = [p.at(place) for p in curve.points], [p.value for p in curve.points]
            axes.plot(xs, ys, color=colours[curve.run], label=named(curve.run), linewidth=1.4)
        axes.set_xlabel(LABELS[place])
    figure.axes[0].legend(frameon=False, fontsize=8)


def sweep_plots(rows: Sequence[Row], order: Sequence[str] = ()) -> list[Plot]:
    """Of results that differ in guidance: recall against precision, and each distance against guidance."""
    plots = []
    swept = sweeps_of(rows)
    if not swept:
        return []
    colours = colours_of([*order, *(row.source for row in rows), *swept])
    if len(swept) > len({each[0].source for each in swept.values()}):
        colours = colours_of(list(swept))  # several of one run have colours of their own
    names = dict.fromkeys(name for each in swept.values() for row in each for name in row.result.metrics)
    pairs = [(n, n.replace("precision", "recall")) for n in names if n.endswith("precision")]
    for precision, recall in pairs:
        if recall in names:
            title = f"{recall} against {precision}, over guidance"
            plots.append(
                _plot(title, title, lambda f, p=precision, r=recall: _draw_sweep(f, swept, colours, p, r))
            )
    for name in names:
        if name.endswith(DISTANCES):
            title = f"{name} over guidance"
            plots.append(_plot(title, title, lambda f, n=name: _draw_sweep(f, swept, colours, None, n)))
    return plots


def _draw_sweep(
    figure: Any, swept: Mapping[str, Sequence[Row]], colours: Mapping[str, str], x: str | None, y: str
) -> None:
    axes = figure.subplots()
    for source, rows in swept.items():
        usable = [row for row in rows if y in row.result.metrics and (x is None or x in row.result.metrics)]
        xs = [guidance(row) if x is None else row.result.metrics[x] for row in usable]
        ys = [row.result.metrics[y] for row in usable]
        colour, marks = colours[source], {"marker": "o", "ms": 4, "capsize": 2, "linewidth": 1.4}
        axes.errorbar(xs, ys, yerr=_reach(usable, y), color=colour, label=named(source), **marks)
        if x is not None:
            for row, at, height in zip(usable, xs, ys, strict=True):
                place = {"xytext": (5, 4), "textcoords": "offset points"}  # clear of its mark
                axes.annotate(f"{guidance(row):g}", (at, height), fontsize=7, color=colour, **place)
    axes.set_xlabel("guidance" if x is None else x)
    axes.set_ylabel(y)
    axes.legend(frameon=False, fontsize=8)


def _reach(rows: Sequence[Row], name: str) -> list[list[float]] | None:
    found = [row.result.estimate(name) for row in rows]
    if any(one.low is None or one.high is None for one in found):
        return None
    return [[one.value - (one.low or 0) for one in found], [(one.high or 0) - one.value for one in found]]


def _plot(name: str, title: str, draw: Any, *, wide: bool = False) -> Plot:
    files = {}
    for kind, theme, form in (("svg", LIGHT, "svg"), ("dark_svg", DARK, "svg"), ("png", LIGHT, "png")):
        figure = require("matplotlib.figure", extra="plots").Figure(
            figsize=(9.6, 3.0) if wide else (4.8, 3.4), layout="constrained"
        )
        draw(figure)
        figure.suptitle(plain(title), fontsize=10, color=theme["text"], x=0.01, ha="left")
        _paint(figure, theme)
        buffer = io.BytesIO()
        # a hash of the content, not of the time and of chance: the same results give the same file
        with require("matplotlib", extra="plots").rc_context(
            {"svg.hashsalt": "genzoo", "svg.fonttype": "none"}
        ):
            figure.savefig(
                buffer,
                format=form,
                dpi=150,
                transparent=form == "svg",
                metadata=None if form == "png" else {"Date": None},
            )
        files[kind] = buffer.getvalue()
    return Plot(name, title, **files, wide=wide)


def _paint(figure: Any, theme: Mapping[str, str]) -> None:
    for axes in figure.axes:
        axes.tick_params(colors=theme["text"], labelsize=8)
        for text in (
            axes.xaxis.label,
            axes.yaxis.label,
            *(axes.get_legend().texts if axes.get_legend() else []),
        ):
            text.set_color(theme["text"])
            text.set_fontsize(8)
        for name, spine in axes.spines.items():
            spine.set_visible(name in ("left", "bottom"))
            spine.set_color(theme["line"])
        axes.grid(visible=True, alpha=0.25, linewidth=0.6)


def named(run: str) -> str:
    """A run's name in a legend, which a long one would fill."""
    return plain(shortened(run, LEGEND))


def plain(text: str) -> str:
    """A text that matplotlib draws as it is: a dollar would begin mathematics."""
    return text.replace("$", r"\$")
