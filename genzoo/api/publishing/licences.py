"""Licences that the hub knows by name."""

from __future__ import annotations

from genzoo.core.errors import UsageError, did_you_mean

NAMES = """
unknown other apache-2.0 mit openrail bigscience-openrail-m creativeml-openrail-m openrail++ afl-3.0
artistic-2.0 bsl-1.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear c-uda cc cc0-1.0 cc-by-2.0 cc-by-2.5
cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nd-4.0
cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cdla-sharing-1.0
cdla-permissive-1.0 cdla-permissive-2.0 wtfpl ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 eupl-1.2 agpl-3.0
gfdl gpl gpl-2.0 gpl-3.0 lgpl lgpl-2.1 lgpl-3.0 isc mpl-2.0 ms-pl ncsa odc-by odbl ofl-1.1 osl-3.0 pddl
postgresql unlicense zlib
"""


def require_licence(name: str) -> str:
    """The name of a licence that the hub knows. Raises UsageError with the nearest ones."""
    known = NAMES.split()
    if name not in known:
        near = did_you_mean(name, known) or "such as apache-2.0, or other"
        raise UsageError(f"the hub knows no licence {name!r}", fix=near)
    return name
