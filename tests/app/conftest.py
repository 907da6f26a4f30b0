"""The page's tests are there where its packages are: `pip install 'genzoo[app]'`."""

from __future__ import annotations

from importlib.util import find_spec

collect_ignore_glob = [] if find_spec("gradio") else ["test_*.py"]
