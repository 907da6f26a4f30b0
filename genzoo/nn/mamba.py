"""The Mamba mixer, plain and bidirectional, channels-last (Gu & Dao 2023; Zhu et al. 2024, Vision Mamba).

    x, z    = in_proj(tokens)
    x       = silu(causal depthwise convolution of x)          per direction
    dt|B|C  = x_proj(x);  delta = dt_proj.weight dt            per direction; the scan adds dt_proj.bias
    out     = out_proj((scan + reverse scan) * silu(z))

mixer "v2" has a second set of everything but in_proj and out_proj for the reverse direction (keys with _b),
"v1" only a second A, "none" one direction. Nothing is flipped or transposed: the kernels run both ways.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genzoo.core.errors import ShapeError, UsageError
from genzoo.kernels.causal_conv1d import causal_conv1d
from genzoo.kernels.scan import Scan, scan_both, scan_one
from genzoo.nn.depthwise import DepthwiseConv2d
from genzoo.nn.few_launches import convolve_beside_gate, decays, read_and_pass
from genzoo.nn.grid_order import GridOrder

MIXERS = ("v2", "v1", "none")
DT_MIN, DT_MAX, DT_FLOOR = 1e-3, 1e-1, 1e-4


def mixer_options(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Those of a model's arguments that go to its mixers."""
    names = ("mixer", "expand", "d_state", "d_conv", "divide_output", "scan_backend")
    return {name: arguments[name] for name in names}


class MambaMixer(nn.Module):
    """Mix tokens along the sequence by selective scans.

    d_state: states per channel.   d_conv: taps of the convolution.   expand: d_inner / d_model.
    dt_rank: rank of the step-size projection, "auto" is ceil(d_model / 16).   mixer: "v2", "v1" or "none".
    divide_output: average the directions instead of adding them.
    layer_scale: initial value of a gain per output channel, None for no gain.
    order, grid: scan the tokens of a grid in an order of `grid_order`, "rows" as they come.   conv2d: one
    depthwise convolution over the grid, from the identity on, in place of each direction's causal one.
    vim_compat_init: leave dt_proj_b as Vision Mamba does (torch's weights, zero bias), not like dt_proj.
    """

    def __init__(
        self,
        d_model: int,
        *,
        d_state: int = 16,
        d_conv: int = 4,
        expand: int = 2,
        dt_rank: int | str = "auto",
        mixer: str = "v2",
        divide_output: bool = False,
        layer_scale: float | None = None,
        vim_compat_init: bool = False,
        scan_backend: str = "auto",
        bias: bool = False,
        conv_bias: bool = True,
        grid: tuple[int, int] | None = None,
        order: str = "rows",
        conv2d: bool = False,
    ) -> None:
        super().__init__()
        if mixer not in MIXERS:
            raise UsageError(f"there is no mixer {mixer!r}; choose one of {', '.join(MIXERS)}")
        self.d_model, self.d_state, self.d_conv = d_model, d_state, d_conv
        self.d_inner = expand * d_model
        self.dt_rank = math.ceil(d_model / 16) if dt_rank == "auto" else int(dt_rank)
        self.mixer, self.divide_output, self.layer_scale = mixer, divide_output, layer_scale
        self.vim_compat_init, self.scan_backend = vim_compat_init, scan_backend
        self.undecayed: tuple[str, ...] = ()  # decays and skips are no maps
        self.uncast = ("dt_proj.bias", "dt_proj_b.bias")[: 2 if mixer == "v2" else 1]  # the scan adds them

        if grid is None and (order != "rows" or conv2d):
            raise UsageError(
                "an order and a 2-d convolution need the grid of the tokens", fix="give grid=(h, w)"
            )
        self.grid_order = None if grid is None or order == "rows" else GridOrder(grid, order)
        self.conv2d = None if grid is None or not conv2d else DepthwiseConv2d(self.d_inner, grid)

        self.in_proj = nn.Linear(d_model, 2 * self.d_inner, bias=bias)
        self._add_branch("", conv_bias)
        if mixer == "v2":
            self._add_branch("_b", conv_bias)
        elif mixer == "v1":
            self._add_undecayed("A_b_log", self.d_inner, d_state)
        self.out_proj = nn.Linear(self.d_inner, d_model, bias=bias)
        if layer_scale is not None:
            self.gamma = nn.Parameter(torch.empty(d_model))
        self.reset_parameters()

    def _add_branch(self, suffix: str, conv_bias: bool) -> None:
        width, rank = self.d_inner, self.dt_rank
        if self.conv2d is None:
            conv = nn.Conv1d(width, width, self.d_conv, groups=width, padding=self.d_conv - 1, bias=conv_bias)
            self.add_module(f"conv1d{suffix}", conv)
        self.add_module(f"x_proj{suffix}", nn.Linear(width, rank + 2 * self.d_state, bias=False))
        self.add_module(f"dt_proj{suffix}", nn.Linear(rank, width))
        self._add_undecayed(f"A{suffix}_log", width, self.d_state)
        self._add_undecayed(f"D{suffix}", width)

    def _add_undecayed(self, name: str, *shape: int) -> None:
        self.register_parameter(name, nn.Parameter(torch.empty(*shape)))
        self.undecayed += (name,)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Mamba's initial values: A = -(1..n), D = 1, dt log-uniform in [1e-3, 1e-1], torch's else."""
        for module in self.children():
            if isinstance(module, nn.Linear | nn.Conv1d):
                module.reset_parameters()
        for name, parameter in self.named_parameters(recurse=False):
            if name.endswith("_log"):
                parameter.copy_(torch.arange(1, self.d_state + 1).log().expand_as(parameter))
            elif name.startswith("D"):
                parameter.fill_(1.0)
            elif name == "gamma":
                parameter.fill_(self.layer_scale or 0.0)
        _init_dt(self.get_submodule("dt_proj"))
        if self.mixer == "v2":
            if self.vim_compat_init:
                nn.init.zeros_(self.get_parameter("dt_proj_b.bias"))
            else:
                _init_dt(self.get_submodule("dt_proj_b"))

    def forward(self, tokens: Tensor, kept: Tensor | None = None) -> Tensor:
        """tokens: (b, l, d_model) -> (b, l, d_model), scanned along l in the order given.

        kept: (b, l), ascending places of the tokens in the grid when not all are there.
        """
        if tokens.ndim != 3 or tokens.shape[2] != self.d_model:
            raise ShapeError(f"MambaMixer takes (b, l, {self.d_model}), got {tuple(tokens.shape)}")
        if self.grid_order is not None:
            tokens = self.grid_order.there(tokens, kept)
        xz = self.in_proj(tokens)
        y = self._scan(xz) if self.conv2d is None else self._scan_plane(self.conv2d, xz, kept)
        if self.divide_output and self.mixer != "none":
            y = y / 2
        out: Tensor = self.out_proj(y)
        if self.grid_order is not None:
            out = self.grid_order.back(out, kept)
        return out if self.layer_scale is None else out * self.gamma

    def _scan(self, xz: Tensor) -> Tensor:
        taps, backend = self._taps(""), conv_backend(self.scan_backend)
        if self.mixer == "v2":
            u, u_b, z = convolve_beside_gate(xz, *taps, *self._taps("_b"), backend=backend)
        else:
            x, z = xz.chunk(2, dim=-1)
            u = u_b = causal_conv1d(x, *taps, backend=backend)
        return self._scan_directions(u, u_b, z)

    def _scan_plane(self, conv: DepthwiseConv2d, xz: Tensor, kept: Tensor | None) -> Tensor:
        """As `_scan`, after a convolution in the plane, which is left out where tokens are missing."""
        x, z = xz.chunk(2, dim=-1)
        if kept is None and self.grid_order is not None:
            x = self.grid_order.there(conv(self.grid_order.back(x)))
        elif kept is None:
            x = conv(x)
        u = F.silu(x)
        return self._scan_directions(u, u, z)

    def _scan_directions(self, u: Tensor, u_b: Tensor, z: Tensor) -> Tensor:
        """u_b: what the reverse direction of a "v2" reads."""
        names = ("A_log",) if self.mixer == "none" else ("A_log", "A_b_log")
        A, *A_b = decays([self.get_parameter(name) for name in names])
        first = self._branch(u, "", A)
        if self.mixer == "none":
            return scan_one(first, z=z, softplus=True, backend=self.scan_backend)[0]
        second = self._branch(u_b, "_b", A_b[0]) if self.mixer == "v2" else first._replace(A=A_b[0])
        return scan_both(first, second, z=z, softplus=True, backend=self.scan_backend)

    def _taps(self, suffix: str) -> tuple[Tensor, Tensor | None]:
        conv = self.get_submodule(f"conv1d{suffix}")
        assert isinstance(conv, nn.Conv1d)
        return conv.weight.squeeze(1), conv.bias

    def _branch(self, u: Tensor, suffix: str, A: Tensor) -> Scan:
        dt_proj = getattr(self, f"dt_proj{suffix}")
        read, u = read_and_pass(getattr(self, f"x_proj{suffix}"), u)
        dt, B, C = read.split([self.dt_rank, self.d_state, self.d_state], dim=-1)
        return Scan(u, F.linear(dt, dt_proj.weight), A, B, C, getattr(self, f"D{suffix}"), dt_proj.bias)


def conv_backend(scan_backend: str) -> str:
    """The convolution's backend for a scan's: only "cpu" and "torch" exist for both."""
    return scan_backend if scan_backend in ("cpu", "torch") else "auto"


def _init_dt(dt_proj: nn.Module) -> None:
    """softplus(bias) is log-uniform in [DT_MIN, DT_MAX], and the weights keep the input's variance."""
    assert isinstance(dt_proj, nn.Linear)
    scale = dt_proj.in_features**-0.5
    nn.init.uniform_(dt_proj.weight, -scale, scale)
    spread = math.log(DT_MAX) - math.log(DT_MIN)
    dt = torch.exp(torch.rand_like(dt_proj.bias) * spread + math.log(DT_MIN)).clamp_min(DT_FLOOR)
    dt_proj.bias.copy_(dt + torch.log(-torch.expm1(-dt)))
