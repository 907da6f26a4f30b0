"""Which process it was: what tells one from a later one of the same number, and from other machines'."""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
from functools import cache
from pathlib import Path

WINDOWS = os.name == "nt"


def process_start(pid: int) -> str | None:
    """When a process of this machine began; None for one that is gone, "unknown" where nobody tells."""
    with contextlib.suppress(OSError, IndexError):
        # after the name, which may hold anything: state is field 3 and the start time field 22
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2]
        state, began = fields.split()[0], fields.split()[19]
        return None if state == "Z" else began
    if Path("/proc/self/stat").exists() or WINDOWS:
        return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except OSError:
        pass  # somebody else's
    return "unknown"


@cache
def machine() -> str:
    """This machine, or this container: where a process number means the same process."""
    space = ""
    with contextlib.suppress(OSError):
        space = str(Path("/proc/self/ns/pid").stat().st_ino)
    return hashlib.blake2b(f"{socket.gethostname()}|{space}".encode(), digest_size=4).hexdigest()
