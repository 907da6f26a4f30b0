"""The public scan functions, and the one table that decides which backend runs them.

A backend is a module in this package with
    unavailable_reason() -> str | None          why it cannot run on this machine at all
    unsupported_reason(scan, z) -> str | None          why it cannot run this call
    one_direction(scan, *, z, softplus, reverse, want_state) -> (out, last state or None)
    both_directions(first, second, *, z, softplus) -> out      optional: else two scans are added, then gated
where a scan is a `record.Scan`. `scan_one` and `scan_both` take such records; `selective_scan` and
`bidirectional_selective_scan` are the same with the tensors spelled out.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from genzoo.core.contracts import able
from genzoo.core.contracts.execution import FusesDirections
from genzoo.core.errors import BackendUnavailable, UsageError, did_you_mean
from genzoo.kernels.scan.record import Scan, gated
from genzoo.kernels.scan.shapes import check_scan_shapes, compute_dtype

logger = logging.getLogger(__name__)

BACKENDS = {
    "reference": "genzoo.kernels.scan.reference",
    "torch": "genzoo.kernels.scan.torch_scan",
    "cpu": "genzoo.kernels.scan.cpu_scan",
    "triton": "genzoo.kernels.scan.triton_scan",
    "mamba_ssm": "genzoo.kernels.scan.mamba_ssm_scan",
}
PREFERENCE = {"cpu": ("cpu", "torch"), "cuda": ("triton", "mamba_ssm", "torch")}

_requested: ContextVar[str] = ContextVar("genzoo_scan_backend", default="auto")
_modules: dict[str, ModuleType | str] = {}
_announced: set[tuple[str, str, str]] = set()


@contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Scans inside this block that ask for "auto" run on the named backend; each thread for itself."""
    _check_name(name)
    token = _requested.set(name)
    try:
        yield
    finally:
        _requested.reset(token)


def choose_backend(requested: str, device_type: str, reason: Callable[[str], str | None]) -> str:
    """The backend to run: the requested one, or for "auto" the first of the device's preference that can.

    reason(name) says why a backend cannot run the call, or None. Raises BackendUnavailable with that reason
    when a backend asked for by name cannot run: there is no silent change of backend.
    """
    _check_name(requested)
    if requested != "auto":
        why = reason(requested)
        if why is not None:
            raise BackendUnavailable(
                f"scan backend {requested!r} cannot run this call",
                why=why,
                fix='use backend="auto", or see genzoo.kernels.available_backends()',
            )
        return requested
    for name in PREFERENCE.get(device_type, ("torch",)):
        if reason(name) is None:
            return name
    return "reference"


def available_backends() -> dict[str, str | None]:
    """Every backend's name -> None if it can run on this machine, else the reason why not."""
    return {name: _unavailable(name) for name in BACKENDS}


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    *,
    delta_softplus: bool = False,
    reverse: bool = False,
    return_last_state: bool = False,
    backend: str = "auto",
) -> Tensor | tuple[Tensor, Tensor]:
    """The recurrence h_t = exp(dt_t A) h_{t-1} + dt_t B_t u_t, read out as C_t h_t + D u_t, gated by silu(z).

    u, delta, z: (b, l, d).   A: (d, n), real.   D, delta_bias: (d,).
    B, C: (b, l, n); also (b, l, g, n) in g groups of channels, and (d, n) constant in time.
    dt is delta + delta_bias, through softplus if `delta_softplus`.   `reverse` starts at the last position.
    Returns (b, l, d) in u's dtype, and with `return_last_state` also the final state (b, d, n).
    Accumulates in float32, in float64 when u is float64.   Raises ShapeError, BackendUnavailable.
    """
    out, state = scan_one(
        Scan(u, delta, A, B, C, D, delta_bias),
        z=z,
        softplus=delta_softplus,
        reverse=reverse,
        want_state=return_last_state,
        backend=backend,
    )
    return out if state is None else (out, state)


def bidirectional_selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    u_b: Tensor,
    delta_b: Tensor,
    A_b: Tensor,
    B_b: Tensor,
    C_b: Tensor,
    D_b: Tensor | None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_bias_b: Tensor | None = None,
    *,
    delta_softplus: bool = False,
    backend: str = "auto",
) -> Tensor:
    """(scan(u, ...) + reverse scan(u_b, ...)) * silu(z): both directions and their shared gate in one pass.

    Shapes as in `selective_scan`; names with _b belong to the reverse direction. u_b may be u itself.
    Nothing is flipped: position t of every tensor is position t of the sequence.
    """
    first, second = (
        Scan(u, delta, A, B, C, D, delta_bias),
        Scan(u_b, delta_b, A_b, B_b, C_b, D_b, delta_bias_b),
    )
    return scan_both(first, second, z=z, softplus=delta_softplus, backend=backend)


def scan_one(
    scan: Scan,
    *,
    z: Tensor | None = None,
    softplus: bool = False,
    reverse: bool = False,
    want_state: bool = False,
    backend: str = "auto",
) -> tuple[Tensor, Tensor | None]:
    """`selective_scan` of a record; always returns a pair, whose second is the last state if wanted."""
    module = _choose(backend, z, scan)
    options = {"softplus": softplus, "reverse": reverse, "want_state": want_state}
    found: tuple[Tensor, Tensor | None] = module.one_direction(scan, z=z, **options)
    return found


def scan_both(
    first: Scan, second: Scan, *, z: Tensor | None = None, softplus: bool = False, backend: str = "auto"
) -> Tensor:
    """`bidirectional_selective_scan` of two records, the second scanned from the end."""
    module = _choose(backend, z, first, second)
    fused = able(module, FusesDirections)
    if fused is not None:
        out: Tensor = fused.both_directions(first, second, z=z, softplus=softplus)
        return out
    y, _ = module.one_direction(first, z=None, softplus=softplus, reverse=False)
    y_b, _ = module.one_direction(second, z=None, softplus=softplus, reverse=True)
    return gated(y.to(compute_dtype(y)) + y_b, z, first.u)


def _choose(backend: str, z: Tensor | None, *scans: Scan) -> Any:
    """The backend that runs the call. Raises ShapeError unless the tensors fit together."""
    for scan in scans:
        check_scan_shapes(scan, z)

    def reason(candidate: str) -> str | None:
        found = (_unsupported(candidate, scan, z) for scan in scans)
        return next((why for why in found if why is not None), None)

    requested, device = _requested.get() if backend == "auto" else backend, scans[0].u.device.type
    name = choose_backend(requested, device, reason)
    if requested == "auto" and not torch.compiler.is_compiling():
        _announce(name, device)
    return _module(name)


def _announce(name: str, device_type: str) -> None:
    best = PREFERENCE.get(device_type, ("torch",))[0]
    why = None if name == best else _unavailable(best)
    key = (device_type, name, why or "")
    if key in _announced:
        return
    _announced.add(key)
    logger.info("selective scan on %s: backend %r%s", device_type, name, f" ({best!r}: {why})" if why else "")


def _check_name(name: str) -> None:
    if name != "auto" and name not in BACKENDS:
        hint = did_you_mean(name, BACKENDS) or f"known: auto, {', '.join(BACKENDS)}"
        raise UsageError(f"there is no scan backend {name!r}; {hint}")


def _module(name: str) -> Any:
    module = _load(name)
    assert not isinstance(module, str)
    return module


def _load(name: str) -> ModuleType | str:
    """The backend's module, or why it cannot be imported (an optional package is missing, or broken)."""
    if name not in _modules:
        try:
            _modules[name] = importlib.import_module(BACKENDS[name])
        except Exception as error:  # of a package that is broken: the other backends work without it
            _modules[name] = f"cannot be imported: {error}"
    return _modules[name]


def _unavailable(name: str) -> str | None:
    module = _load(name)
    return module if isinstance(module, str) else module.unavailable_reason()


def _unsupported(name: str, scan: Scan, z: Tensor | None) -> str | None:
    module = _load(name)
    return module if isinstance(module, str) else module.unsupported_reason(scan, z)


# torch.compile cannot trace an import, so what auto may choose here is loaded with this module
for _name in PREFERENCE["cuda" if torch.cuda.is_available() else "cpu"]:
    _load(_name)
