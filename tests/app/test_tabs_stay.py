"""What a page that loads does to the tab that is open."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

gr = pytest.importorskip("gradio")


@pytest.mark.parametrize("asked", ["", "nothing-like-it"])
def test_a_page_that_asks_for_no_tab_leaves_the_open_one(asked: str) -> None:
    """An empty update of the tabs would open the first one again."""
    from genzoo.app.tabs import _asked_tab

    request: Any = SimpleNamespace(query_params={"tab": asked} if asked else {})
    assert _asked_tab(request) == gr.skip()


def test_a_page_opens_the_tab_that_its_address_names() -> None:
    from genzoo.app.tabs import _asked_tab

    request: Any = SimpleNamespace(query_params={"tab": "runs"})
    assert _asked_tab(request).selected == "runs"
