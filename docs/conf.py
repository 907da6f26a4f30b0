"""How Sphinx builds this site: `make docs`. Nothing is asked of other machines, then or when it is read."""

import os
import sys
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
HERE = Path(__file__).resolve().parent
sys.path[:0] = [path for path in (str(HERE / "_extensions"), str(HERE.parent)) if path not in sys.path]

import genzoo  # noqa: E402  (found by the line above)

project = "genzoo"
author = "The genzoo authors"
version = release = genzoo.__version__
copyright = f"{author}, Apache-2.0"

extensions = ["myst_parser", "sphinx_design", "sphinx_copybutton", "sphinx.ext.autodoc", "genzoo_docs"]
exclude_patterns = ["_extensions", "_build", "_static"]

myst_enable_extensions = ["colon_fence", "dollarmath", "fieldlist", "deflist"]
myst_heading_anchors = 3
copybutton_exclude = ".linenos, .gp, .go"

# types of torch and the like are not looked up anywhere
nitpicky = True
nitpick_ignore_regex = [("py:.*", r".*")]
autodoc_typehints = "none"
autodoc_member_order = "bysource"
python_use_unqualified_type_names = True

html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["genzoo.css"]
html_title = f"genzoo {version}"
html_show_sphinx = False
html_copy_source = False
html_theme_options = {"footer_icons": []}
