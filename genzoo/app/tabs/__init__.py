"""The four tabs of the page, each in a file of its own."""

from __future__ import annotations

from typing import Any

import gradio as gr

from genzoo.app.page import Page
from genzoo.app.tabs.evaluate import evaluate_tab
from genzoo.app.tabs.runs import runs_tab
from genzoo.app.tabs.sample import sample_tab
from genzoo.app.tabs.teach import teach_tab
from genzoo.app.text import plain

NAMES = ("sample", "teach", "runs", "evaluate")


def build_tabs(page: Page) -> gr.Blocks:
    """The page. The open tab stands in the address, so that a page that loads again opens it again."""
    with gr.Blocks(title="genzoo", analytics_enabled=False, delete_cache=(3600, 86400)) as blocks:
        gr.Markdown(
            "# genzoo\nMake pictures, teach a model something of yours, and watch it learn.", elem_id="title"
        )
        with gr.Tabs(elem_id="tabs", overflow_behavior="wrap") as tabs:
            with gr.Tab("Sample", id="sample"):
                sample_tab(page, blocks)
            with gr.Tab("Teach", id="teach"):
                teach_tab(page, blocks)
            with gr.Tab("Runs", id="runs"):
                runs_tab(page, blocks)
            with gr.Tab("Evaluate", id="evaluate"):
                evaluate_tab(page, blocks)
        blocks.load(_asked_tab, None, tabs, api_visibility="private", show_progress="hidden")
        blocks.load(lambda: page.worker.warm(), None, None, api_visibility="private", show_progress="hidden")
        tabs.select(None, None, None, js=_KEEP_TAB)
    return blocks


_KEEP_TAB = """() => { setTimeout(() => {
  const open = document.querySelector('#tabs [role=tab][aria-selected=true]');
  if (!open) return;
  const to = new URL(location.href);
  to.searchParams.set('tab', open.textContent.trim().toLowerCase());
  history.replaceState(null, '', to) }, 50) }"""


def _asked_tab(request: gr.Request) -> Any:
    asked = plain(request.query_params.get("tab", ""))
    # an empty update would send a visitor back who has opened another tab in the meantime
    return gr.Tabs(selected=asked) if asked in NAMES else gr.skip()
