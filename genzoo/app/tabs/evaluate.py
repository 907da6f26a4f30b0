"""Evaluate: judge runs by a protocol, and set their results side by side as `genzoo compare` does."""

from __future__ import annotations

import os
from functools import partial
from typing import Any

import gradio as gr

from genzoo.app.page import PRIVATE, QUIET, Page, a_choice, a_number, complain, note, texts
from genzoo.app.text import plain
from genzoo.core.errors import GenzooError, UsageError
from genzoo.evaluation.protocols import outline

EVERY = 4.0
USUAL, ALL = "quick-pixels", "every protocol"
MOST = 6  # runs at once
KIND = "evaluation"
HOW = "Tick runs. Results that they have already are shown at once; Evaluate makes new ones."


def evaluate_tab(page: Page, blocks: gr.Blocks) -> None:
    """Build the tab."""
    drawn = gr.State(None)
    with gr.Row():
        with gr.Column(scale=2, min_width=320, elem_classes="form-column"):
            runs = gr.CheckboxGroup([], label="Runs", elem_classes="runs", elem_id="evaluate-runs")
            protocol = gr.Dropdown(
                [(plain(f"{name}: {about}", longest=110), name) for name, about in outline().items()],
                value=USUAL, label="Protocol", info="How pictures are judged", elem_id="evaluate-protocol",
            )  # fmt: skip
            num = gr.Number(
                256, precision=0, minimum=2, label="Pictures", elem_id="evaluate-num",
                info="More are surer and slower; the result says how many",
            )  # fmt: skip
            begin = gr.Button("Evaluate", variant="primary", elem_id="evaluate-begin")
        with gr.Column(scale=3, min_width=320, elem_classes="result-column"):
            state = note(HOW, "evaluate-state", lines=2, most=10, also="empty")
            table = gr.Dataframe(
                None, label="Results", interactive=False, wrap=True, visible=False, elem_id="evaluate-table"
            )
            said = note("", "evaluate-said", most=20)
            plots = gr.Gallery(
                label="Plots", show_label=False, columns=1, height="auto", object_fit="contain",
                interactive=False, visible=False, buttons=["download", "fullscreen"],
                elem_id="evaluate-plots",
            )  # fmt: skip
    shown = [runs, state, table, said, plots, drawn]
    look = partial(look_at, page)
    for when in (blocks.load, gr.Timer(EVERY).tick, runs.change, protocol.change):
        when(look, [runs, protocol, drawn], shown, **QUIET)
    begin.click(partial(begin_all, page), [runs, protocol, num], None, **PRIVATE)


def begin_all(page: Page, chosen: Any, protocol: Any, num: Any) -> None:
    """Start `genzoo evaluate` for each ticked run."""
    try:
        names = _chosen(page, chosen)
        if not names:
            raise UsageError("no run is ticked yet", fix="tick one or several")
        protocol = a_choice(protocol, outline(), "protocol")
        count = a_number(num, "the number of pictures", 2, 1_000_000)
        for name in names:
            run = page.library.run(name)
            if not run.can_sample:
                raise UsageError(f"{name} has saved nothing yet", fix="wait for its first checkpoint")
            words = ["evaluate", str(run.path), "--protocol", protocol, "--num", str(count), "--overwrite"]
            page.jobs.start(_job(name), words, kind=KIND)
    except GenzooError as error:
        complain(error)
        return
    gr.Info("It makes pictures and judges them. The results appear here.")


def look_at(page: Page, chosen: Any, protocol: Any, drawn: Any) -> list[Any]:
    """What changed since the last look: the list, what is being judged, and the comparison."""
    listed = [(plain(run.name, longest=80), run.name) for run in page.library.runs()]
    names = _chosen(page, chosen)
    results = [sorted(str(p) for p in _results(page, name)) for name in names]
    stamps = [[_stamp(path) for path in each] for each in results]
    words = _state(page, names)
    now = {"listed": listed, "names": names, "stamps": stamps, "protocol": protocol, "words": words}
    before = drawn or {}
    if now == before:
        return [gr.skip()] * 6
    out: list[Any] = [gr.skip()] * 6
    out[1], out[5] = words, now
    if listed != before.get("listed"):
        out[0] = gr.CheckboxGroup(listed, **({} if texts(chosen) == names else {"value": names}))
    if any(now[key] != before.get(key) for key in ("names", "stamps", "protocol")):
        out[2], out[3], out[4] = _compared(
            page, [name for name, each in zip(names, results, strict=True) if each], protocol
        )
    return out


def _compared(page: Page, names: list[str], protocol: Any) -> list[Any]:
    nothing = [gr.Dataframe(None, visible=False), "", gr.Gallery([], visible=False)]
    if not names:
        return nothing
    sources = [str(page.library.run(name).path) for name in names]
    try:
        found = page.worker.ask("compare", sources=sources, folder=str(page.new_place()), protocol=protocol)
    except GenzooError as error:
        return [nothing[0], plain(error.what, longest=600), nothing[2]]
    lines = [*(note for table in found["tables"] for note in table["notes"]), *found["notes"]]
    said = plain("\n".join(lines), longest=4000, lines=True)
    plots = gr.Gallery([(path, plain(title)) for path, title in found["plots"]], visible=bool(found["plots"]))
    if not found["tables"]:
        return [nothing[0], said, plots]
    first = found["tables"][0]
    shown = {
        "headers": [plain(one, longest=60) for one in first["head"]],
        "data": [[plain(one) for one in row] for row in first["rows"]],
    }
    return [gr.Dataframe(shown, visible=True), said, plots]


def _state(page: Page, names: list[str]) -> str:
    """What is being judged, and why something was not."""
    lines = []
    for job in page.jobs.of_kind(KIND):
        name = job.name.removesuffix(_job(""))
        if job.alive:
            lines.append(f"{name} is being judged.")
        elif name in names and "error:" in (last := page.jobs.last_words(job.name)):
            lines.append(f"{name}: {last[last.index('error:') :]}")
    return plain("\n".join(lines) or HOW, longest=2000, lines=True)


def _job(name: str) -> str:
    return f"{name} (evaluation)"


def _results(page: Page, name: str) -> Any:
    return (page.library.run(name).path / "evaluation").glob("*.json")


def _stamp(path: str) -> tuple[str, float]:
    try:
        return path, os.stat(path).st_mtime
    except OSError:
        return path, 0.0


def _chosen(page: Page, chosen: Any) -> list[str]:
    known = {run.name for run in page.library.runs()}
    return [name for name in texts(chosen) if name in known][:MOST]
