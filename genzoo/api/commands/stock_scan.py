"""How the package mamba-ssm is built for the torch and the CUDA of this machine; genzoo needs none of it.

Its build imports torch, which pip's isolated builds lack, compiles with nvcc, and leaves its CUDA scan out
unless it is asked for: no extra of a package can say all that, so the commands are printed.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Literal

OPTIONAL = "optional; genzoo's own scans need none of it"
LOWEST = "2.2.4"  # whose interface the adapter knows


def describe(version: str | None) -> tuple[Literal["ok", "note"], list[str]]:
    """Level and lines about mamba-ssm. version: the installed one, or None."""
    import torch

    from genzoo.kernels.scan.mamba_ssm_scan import unavailable_reason

    reason = unavailable_reason()
    if version and reason is None:
        return "ok", [version]
    head = f"{version}, cannot be used: {reason}" if version else OPTIONAL
    home = cuda_home()
    return "note", [head, *build_lines(torch.__version__, torch.version.cuda, home, nvcc_release(home))]


def build_lines(torch_version: str, cuda: str | None, home: Path | None, nvcc: str | None) -> list[str]:
    """The commands, or what is missing for them.

    cuda: what torch was built for.   home, nvcc: folder and release of the toolkit that was found.
    """
    torch_version = torch_version.partition("+")[0]
    if sys.platform != "linux":
        return ["its CUDA scan builds on Linux only"]
    if cuda is None:
        return [f"its CUDA scan needs a torch for CUDA; torch {torch_version} here is built for the CPU"]
    if home is None or nvcc is None or nvcc.partition(".")[0] != cuda.partition(".")[0]:
        found = "no nvcc was found" if nvcc is None else f"nvcc {nvcc} in {home} is of another major version"
        return [
            f"torch {torch_version} is built for CUDA {cuda}, and {found}: install NVIDIA's toolkit {cuda}, "
            "set CUDA_HOME to it, and ask `genzoo doctor` again"
        ]
    return [
        f"to build it for torch {torch_version} and CUDA {cuda} with nvcc {nvcc}:",
        "pip install ninja packaging setuptools wheel",
        f"CUDA_HOME={home} MAMBA_KEEP_CUDA_BUILD=TRUE pip install --no-build-isolation "
        f"'mamba-ssm>={LOWEST}' 'torch=={torch_version}'",
    ]


def cuda_home() -> Path | None:
    """The CUDA toolkit that a build would take, as torch looks for it; None without nvcc."""
    named = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    on_path = shutil.which("nvcc")
    places = [Path(named)] if named else []
    places += [Path(on_path).resolve().parents[1]] if on_path else []
    places.append(Path("/usr/local/cuda"))
    return next((place for place in places if (place / "bin" / "nvcc").is_file()), None)


def nvcc_release(home: Path | None) -> str | None:
    """Such as 13.0; None where nvcc is not there or does not answer."""
    if home is None:
        return None
    try:
        told = subprocess.run(
            [home / "bin" / "nvcc", "--version"], capture_output=True, text=True, timeout=20, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    found = re.search(r"release (\d+\.\d+)", told.stdout)
    return found[1] if found else None
