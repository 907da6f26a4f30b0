"""The model families, one per sub-folder; importing this package reads every family's card of names.

Those of other packages that declare the entry point group are read too, see genzoo.core.plugins.
"""

from __future__ import annotations

import importlib
import pkgutil

from genzoo.core.plugins import load_installed

for _family in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_family.name}")

load_installed()
