"""How large a model is and how much it computes, for one sample.

Two ways of counting. `count_model(...)` is honest: every parameter, and every multiply-add of linear maps,
convolutions, attention products and state-space scans. `count_model(..., paper=True)` asks the model for the
count its paper printed, which can leave a great deal out: see `thop_count`. Nothing is computed: shapes flow
on the meta device.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from genzoo.core.contracts import able, members
from genzoo.core.contracts.models import CountsLikePaper, GivesExample, fixed_tables, remembered_arguments
from genzoo.core.errors import UsageError
from genzoo.nn.mamba import MambaMixer

T = TypeVar("T")
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_OPERATION_KINDS = {"mm": "linear", "addmm": "linear", "convolution": "conv", "_convolution": "conv"}


def count_model(
    model: nn.Module, *, image_size: int | None = None, latent_factor: int = 8, paper: bool = False
) -> dict[str, Any]:
    """Parameters and multiply-adds of one forward pass.

    image_size: height of the square image in pixels; the model is counted as if built for latents of
    image_size / latent_factor (1 for models of pixels). Left out: the model's own size.
    paper: count as the model's paper did, through its method `paper_count()`.

    Returns at least "params" in millions and "gflops" in 10^9, unrounded. Honest counts call one multiply-add
    one flop, as the papers do, and add the exact integers: num_params, of which params_fixed (position tables
    that are stored but never learned; "params" leaves them out), params_trainable, params_embedding and
    params_mixer; and macs, the sum of macs_linear, macs_conv, macs_attention, macs_scan. Norms, activations
    and the gates of residual branches are not counted.
    """
    model = on_meta(model, input_size=_latent_size(image_size, latent_factor))
    if paper:
        counted = _required(model, CountsLikePaper, "the count its paper prints")
        return {"counting": "paper", **counted.paper_count()}
    macs = count_macs(model)
    params = count_params(model)
    return {
        "counting": "honest",
        "params": (params["num_params"] - params["params_fixed"]) / 1e6,
        "gflops": sum(macs.values()) / 1e9,
        **params,
        "macs": sum(macs.values()),
        **{f"macs_{kind}": number for kind, number in macs.items()},
    }


def count_params(model: nn.Module) -> dict[str, int]:
    """num_params, and how many are fixed tables (named by `model.fixed_tables`), trainable, and so on."""

    def held_by(kind: type[nn.Module]) -> int:
        return sum(
            p.numel() for module in model.modules() if isinstance(module, kind) for p in module.parameters()
        )

    return {
        "num_params": sum(p.numel() for p in model.parameters()),
        "params_fixed": sum(model.get_parameter(name).numel() for name in fixed_tables(model)),
        "params_trainable": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "params_embedding": held_by(nn.Embedding),
        "params_mixer": held_by(MambaMixer),
    }


def count_macs(model: nn.Module) -> dict[str, int]:
    """Multiply-adds of one sample by kind: linear, conv, attention, scan. Needs `model.example_inputs()`."""
    # loads Triton, which models that name this file do not need
    from torch.utils.flop_counter import FlopCounterMode

    model = on_meta(model)
    totals = {"linear": 0, "conv": 0, "attention": 0, "scan": 0}

    def add(mixer: MambaMixer, x: Tensor) -> None:
        for kind, number in mixer_macs(mixer, x.shape[0] * x.shape[1]).items():
            totals[kind] += number

    with _mixers_passed_over(model, add), FlopCounterMode(display=False) as counter, torch.no_grad():
        model(*_example_inputs(model))
    for operation, flops in counter.get_flop_counts().get("Global", {}).items():
        # products of two activations, batched or fused, are attention's; weights enter through mm and addmm
        totals[_OPERATION_KINDS.get(operation.__name__.partition(".")[0], "attention")] += flops // 2
    return totals


def mixer_macs(mixer: MambaMixer, num_tokens: int) -> dict[str, int]:
    """Multiply-adds of a mixer by kind.

    A scan takes, for each token, direction and channel, 4 for every state (delta A, the decay of h, the share
    of the input, the product with C) and 3 more (delta u, the skip D u, the gate).
    """
    size = {name: parameter.numel() for name, parameter in mixer.named_parameters()}
    num_sets = 2 if "x_proj_b.weight" in size else 1
    num_directions = 2 if "A_b_log" in size else 1
    shared = size["in_proj.weight"] + size["out_proj.weight"]
    return {
        "linear": num_tokens * (shared + num_sets * (size["x_proj.weight"] + size["dt_proj.weight"])),
        "conv": num_tokens * (size.get("conv2d.weight") or num_sets * size["conv1d.weight"]),
        "scan": num_tokens * num_directions * (4 * size["A_log"] + 3 * size["D"]),
    }


def thop_count(model: nn.Module, *, batch: int) -> dict[str, float]:
    """Count like the thop package counts a Mamba model whose mixer is one fused operation.

    What it leaves out: the whole mixer (projections, convolution and scan, parameters and work alike), the
    products of queries, keys and values, and every parameter that is no Linear or convolution (embedding
    tables, positions, tokens). What it adds: two operations for each value of a layer norm. The work is
    multiplied by `batch`, the number of samples that were profiled at once.
    """
    model = on_meta(model)
    macs = 0

    def visit(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal macs
        if isinstance(layer, nn.LayerNorm):
            macs += 2 * inputs[0].numel() * (1 + layer.elementwise_affine)
        elif isinstance(layer, nn.Linear):
            macs += output.numel() * layer.in_features
        elif isinstance(layer, _CONVOLUTIONS):
            macs += output.numel() * layer.weight[0].numel()

    mixers = tuple(f"{name}." for name, module in model.named_modules() if isinstance(module, MambaMixer))
    layers = [
        module
        for name, module in model.named_modules()
        if isinstance(module, (nn.Linear, nn.LayerNorm, *_CONVOLUTIONS)) and not name.startswith(mixers)
    ]
    hooks = [layer.register_forward_hook(visit) for layer in layers]
    with _mixers_passed_over(model, lambda mixer, x: None), torch.no_grad():
        model(*_example_inputs(model))
    for hook in hooks:
        hook.remove()
    params = sum(p.numel() for layer in layers for p in layer.parameters())
    return {"params": params / 1e6, "gflops": batch * macs / 1e9, "num_params": params, "batch": batch}


def on_meta(model: nn.Module, *, input_size: int | None = None) -> nn.Module:
    """The model without storage, copied if need be; with input_size, the architecture built for that size.

    Another size needs `model.arguments`, the keyword arguments that built the model, "input_size" among them.
    """
    arguments = remembered_arguments(model)
    if input_size is None or input_size == arguments.get("input_size"):
        tensors = [*model.parameters(), *model.buffers()]
        if all(tensor.is_meta for tensor in tensors):
            return model
        # deepcopy takes what the memo holds for it: shapes are copied, storage is not
        return copy.deepcopy(model, {id(tensor): _without_storage(tensor) for tensor in tensors})
    if "input_size" not in arguments:
        raise UsageError(f"{type(model).__name__} has no input_size to change; leave out image_size")
    with torch.device("meta"):
        return type(model)(**{**arguments, "input_size": input_size})


def _without_storage(tensor: Tensor) -> Tensor:
    empty = torch.empty_like(tensor, device="meta")
    return (
        nn.Parameter(empty, requires_grad=tensor.requires_grad) if isinstance(tensor, nn.Parameter) else empty
    )


def _latent_size(image_size: int | None, latent_factor: int) -> int | None:
    if image_size is None:
        return None
    if image_size < latent_factor or image_size % latent_factor:
        raise UsageError(
            f"image_size {image_size} is not a multiple of {latent_factor}, the reduction of the autoencoder",
            fix="pass latent_factor=1 for a model of pixels" if latent_factor > 1 else None,
        )
    return image_size // latent_factor


def _required(model: nn.Module, ability: type[T], returns: str) -> T:
    found = able(model, ability)
    if found is None:
        raise UsageError(
            f"{type(model).__name__} cannot be counted this way: it has no method {members(ability)[0]}()",
            fix=f"give it one that returns {returns}",
        )
    return found


def _example_inputs(model: nn.Module) -> tuple[Any, ...]:
    return tuple(_required(model, GivesExample, "the arguments of forward for one sample").example_inputs())


@contextmanager
def _mixers_passed_over(model: nn.Module, visit: Callable[[MambaMixer, Tensor], None]) -> Iterator[None]:
    """Let mixers return their input's shape and report it to `visit`: scans need not run to be counted."""
    mixers = [module for module in model.modules() if isinstance(module, MambaMixer)]

    def stand_in(mixer: MambaMixer) -> Callable[[Tensor], Tensor]:
        def forward(x: Tensor) -> Tensor:
            visit(mixer, x)
            return torch.empty_like(x)

        return forward

    for mixer in mixers:
        mixer.__dict__["forward"] = stand_in(mixer)
    try:
        yield
    finally:
        for mixer in mixers:
            del mixer.__dict__["forward"]
