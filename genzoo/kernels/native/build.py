"""Compile the C kernels once per machine and load them.

The result lies in GENZOO_CACHE, else XDG_CACHE_HOME/genzoo, else ~/.cache/genzoo, under a name made of all
that could change it: sources, flags and processor, then the compiler. Files appear by rename, and a lock lets
one process compile while others wait, so any number of processes may start at once. A library is loaded when
its bytes have the hash beside it; one that was cut, zeroed or altered would crash the process, and is made
anew. Without a compiler, one that another compiler made here serves.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import threading
from functools import cache
from pathlib import Path

from filelock import FileLock

from genzoo.core.cache_folder import cache_folder
from genzoo.core.errors import DataError
from genzoo.core.files import scratch_folder, write_file
from genzoo.core.leftovers import tidy

SOURCES = Path(__file__).parent
PRECISIONS = ("f32", "f64")
# widest vectors first; the later ones serve compilers without -march=native or without OpenMP
FLAG_SETS = (
    ("-march=native", "-mprefer-vector-width=512", "-fopenmp"),
    ("-march=native", "-fopenmp"),
    ("-march=native",),
    (),
)
COMMON_FLAGS = ("-O3", "-std=gnu99", "-fPIC", "-fno-math-errno", "-fno-trapping-math")
_lock = threading.Lock()


class NativeBuildError(RuntimeError):
    """The kernels cannot be compiled or loaded here; the message says why in one line."""


def load(precision: str) -> ctypes.CDLL:
    """The library for "f32" or "f64", compiled now if this machine has not done so before."""
    settings = [os.environ.get(name) for name in ("GENZOO_CACHE", "XDG_CACHE_HOME", "CC")]
    with _lock:
        outcome = _load_once(precision, *settings)
    if isinstance(outcome, str):
        raise NativeBuildError(outcome)
    return outcome


def unavailable_reason() -> str | None:
    """None when the float32 kernels can be used; compiles them if need be."""
    try:
        load("f32")
    except NativeBuildError as error:
        return str(error)
    return None


@cache
def _load_once(precision: str, *settings: str | None) -> ctypes.CDLL | str:
    """The library, or the reason why there is none; not tried again while the settings are the same."""
    try:
        return _open(_library(precision, cache_folder("kernels"), settings[-1]))
    except (NativeBuildError, DataError, OSError, NotImplementedError, subprocess.SubprocessError) as error:
        return f"{error}".strip() or type(error).__name__


def _find_compiler(named: str | None) -> str:
    for candidate in [named] if named else ["cc", "gcc", "clang"]:
        path = shutil.which(candidate)
        if path:
            return path
    raise NativeBuildError(f"no C compiler: {named or 'cc, gcc, clang'} not found")


def _library(precision: str, folder: Path, named: str | None) -> Path:
    """The library's path, compiled now if need be.   named: a compiler, the system's when left out."""
    stem = f"genzoo_{precision}_{_machine()}"
    try:
        compiler = _find_compiler(named)
        target = folder / f"{stem}_{_version(compiler)}.so"
    except (NativeBuildError, OSError, subprocess.SubprocessError):
        others = sorted(folder.glob(f"{stem}_*.so")) if folder.is_dir() else []
        found = next((path for path in others if _is_whole(path)), None)
        if found is None:
            raise
        return found
    folder.mkdir(parents=True, exist_ok=True)
    tidy(folder)
    with FileLock(folder / "lock"):
        if not _is_whole(target):
            _compile(precision, compiler, target)
            write_file(_hash_file(target), _digest(target))
    return target


def _is_whole(library: Path) -> bool:
    """Whether a library's bytes are those that were compiled."""
    try:
        return library.is_file() and _hash_file(library).read_text() == _digest(library)
    except (OSError, UnicodeDecodeError):
        return False


def _hash_file(library: Path) -> Path:
    return library.with_suffix(".sha256")


def _digest(library: Path) -> str:
    return hashlib.sha256(library.read_bytes()).hexdigest()


def _open(target: Path) -> ctypes.CDLL:
    _share_openmp()
    try:
        return ctypes.CDLL(str(target))
    except OSError as error:
        raise NativeBuildError(f"{target} cannot be loaded ({error})") from error


def _machine() -> str:
    """A hash of what is compiled, how, and for which processor."""
    digest = hashlib.sha256()
    for source in sorted(SOURCES.glob("*.[ch]")):
        digest.update(source.name.encode() + source.read_bytes())
    digest.update(repr((FLAG_SETS, COMMON_FLAGS)).encode() + _processor().encode())
    return digest.hexdigest()[:16]


def _version(compiler: str) -> str:
    """A hash of which compiler it is."""
    said = subprocess.run([compiler, "--version"], capture_output=True, check=True, timeout=60).stdout
    return hashlib.sha256(said).hexdigest()[:8]


def _processor() -> str:
    """What -march=native depends on: a home folder may be shared between different machines."""
    with contextlib.suppress(OSError):
        text = Path("/proc/cpuinfo").read_text()
        found = re.findall(r"^(?:model name|flags|Features|CPU part)\s*:.*$", text, flags=re.MULTILINE)
        return platform.machine() + "\n".join(sorted(set(found)))
    return f"{platform.machine()} {platform.processor()} {platform.platform()}"


def _compile(precision: str, compiler: str, target: Path) -> None:
    """Write the library with the first set of flags that works."""
    write_file(target, lambda part: _compile_to(part, precision, compiler))


def _compile_to(linked: Path, precision: str, compiler: str) -> None:
    errors: list[str] = []
    with scratch_folder(linked) as scratch:
        compiled = scratch / "kernels.o"
        for flags in FLAG_SETS:
            source = [
                f"-DPRECISION_{precision.upper()}",
                "-c",
                str(SOURCES / "kernels.c"),
                "-o",
                str(compiled),
            ]
            # linked without -fopenmp: its symbols come from the OpenMP runtime that torch has loaded already
            link = [compiler, "-shared", *_undefined_allowed(), str(compiled), "-o", str(linked)]
            if "-fopenmp" in flags and not _openmp_runtime():
                continue
            failure = _run([compiler, *COMMON_FLAGS, *flags, *source]) or _run(link)
            if failure is None:
                return
            errors.append(failure)
    raise NativeBuildError(f"{compiler} failed: {errors[-1]}")


def _undefined_allowed() -> list[str]:
    return ["-undefined", "dynamic_lookup"] if platform.system() == "Darwin" else []


def _run(command: list[str]) -> str | None:
    """None, or the first line of what went wrong."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    if done.returncode == 0:
        return None
    lines = [line for line in done.stderr.splitlines() if "error" in line] or done.stderr.splitlines()
    return lines[0] if lines else f"exit status {done.returncode}"


@cache
def _openmp_runtime() -> str | None:
    """The OpenMP runtime of this process. A second one would fight torch's over the cores."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/maps").read_text().splitlines():
            if "libgomp" in line:
                return line[line.index("/") :]
    torch = importlib.util.find_spec("torch")
    found = list((Path(torch.origin).parent / "lib").glob("libgomp*.so*")) if torch and torch.origin else []
    return str(found[0]) if found else None


def _share_openmp() -> None:
    runtime = _openmp_runtime()
    if runtime:
        ctypes.CDLL(runtime, mode=ctypes.RTLD_GLOBAL)
