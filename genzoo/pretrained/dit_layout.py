"""Released weights of DiT and of what shares its key names: converting checks, infers and reports.

Our keys are theirs. Latte's layout is DiT's with a table of frames, `temp_embed`.
"""

from __future__ import annotations

import math
import re
from argparse import Namespace
from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from genzoo.core.errors import UsageError, WeightsError
from genzoo.core.node import Node
from genzoo.core.registry import TASKS, default_of
from genzoo.core.types import Conversion
from genzoo.nn.embeddings import sincos_1d, sincos_2d
from genzoo.pretrained.fitting import check_against, spec_of
from genzoo.pretrained.state_dicts import find_part, find_parts

SIGNATURE = (
    "x_embedder.proj.weight",
    "t_embedder.mlp.0.weight",
    "pos_embed",
    "blocks.0.attn.qkv.weight",
    "blocks.0.adaLN_modulation.1.weight",
    "final_layer.linear.weight",
)
NUM_HEADS = {384: 6, 768: 12, 1024: 16, 1152: 16}  # of DiT-S, B, L and XL: tensors do not show their heads
FRAMES = "temp_embed"


class DiTLayout:
    """The layout of the released checkpoints: a bare state dict, or {model, ema, opt, args} from training.

    model: our name of it.   title: its own.   build: its class.   clips: whether it has a table of frames.
    recipe: the one that such weights are usually sampled with.   claimed: False for files that another layout
    claims, since their entries look the same; they are read when the layout is named.   task: entries
    of the recipe's section that such weights are trained by.
    """

    def __init__(
        self,
        model: str,
        *,
        title: str,
        build: Callable[..., nn.Module],
        recipe: str,
        clips: bool = False,
        claimed: bool = True,
        task: Mapping[str, Any] = MappingProxyType({"name": "latent_diffusion"}),
    ) -> None:
        self.model, self.title, self.build, self.recipe, self.clips = model, title, build, recipe, clips
        self.claimed, self.task = claimed, task

    def detect(self, tree: Mapping[str, Any]) -> bool:
        """Whether the entries have the layout's names and nobody else's; never for an unclaimed layout."""
        return self.claimed and self._fits(tree)

    def _fits(self, tree: Mapping[str, Any]) -> bool:
        """Whether the entries have the layout's names; a table of frames tells Latte from DiT."""
        return any((FRAMES in part.weights) == self.clips for part in find_parts(tree, SIGNATURE))

    def to_genzoo(self, tree: Mapping[str, Any], **arguments: Any) -> Conversion:
        """The averaged weights, where there are any; num_heads is needed for widths other than DiT's own."""
        part = find_part(tree, SIGNATURE) if self._fits(tree) else None
        if part is None:
            raise WeightsError(
                f"these are no {self.title} weights", why=f"expected {self._names()}; found {_first(tree)}"
            )
        ours = part.weights
        arguments = infer_arguments(ours, _options(tree.get("args")) | arguments) | arguments
        checked = self._checked(ours, arguments)
        report: list[tuple[str, str | None, str]] = [
            (part.names[name], name, _describe(name, tensor)) for name, tensor in ours.items()
        ]
        covered = {theirs for theirs, _, _ in report}
        others = [name for name in tree if name not in covered and not part.path.startswith(name)]
        report += [(name, None, _why_left(name, tree[name], part.path)) for name in others]
        return Conversion(self.model, arguments, checked, report)

    def check_task(self, task: Node) -> None:
        """Raise UsageError unless the recipe's task is the one that such weights mean something to."""
        section = task.section()
        given = {key: section.get(key, default_of(TASKS, task.name, key)) for key in self.task}
        differing = [f"{key}: {value!r}" for key, value in given.items() if value != self.task[key]]
        if differing:
            wanted = ", ".join(f"{key}: {value!r}" for key, value in self.task.items())
            raise UsageError(
                f"{self.title} weights belong to another task than this recipe's",
                where="task",
                why=f"it has {', '.join(differing)}",
                fix=f"use a recipe with {wanted}",
            )

    def from_genzoo(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A bare state dict, as the released files are."""
        if not self._fits(weights):
            raise WeightsError(f"these are no {self.title} weights", why=f"found {_first(weights)}")
        # the number of heads changes no shape, so one serves for the check
        return self._checked(weights, infer_arguments(weights, {"num_heads": 1}))

    def _names(self) -> str:
        return ", ".join((*SIGNATURE, FRAMES) if self.clips else SIGNATURE)

    def _checked(self, weights: Mapping[str, Tensor], arguments: Mapping[str, Any]) -> dict[str, Tensor]:
        """The weights, if keys, shapes and kinds of number are those of the model; else CheckpointError.

        Their precision is kept: half-precision files stay small when written back.
        """
        with torch.device("meta"):
            expected = spec_of(self.build(**arguments))
        floating = {name: value.dtype for name, value in weights.items() if value.is_floating_point()}
        spec = {name: (shape, floating.get(name, dtype)) for name, (shape, dtype) in expected.items()}
        checked = check_against(spec, weights, source=f"these {self.title} weights")
        return {name: value.detach().contiguous() for name, value in checked.items()}


def infer_arguments(weights: Mapping[str, Tensor], options: Mapping[str, Any]) -> dict[str, Any]:
    """The model's arguments, read from shapes; options (num_heads, num_classes) settle what they hide."""
    hidden_size, in_channels, patch_size, _ = weights["x_embedder.proj.weight"].shape
    outputs = weights["final_layer.linear.weight"].shape[0] / (patch_size**2 * in_channels)
    if outputs not in (1, 2):
        raise WeightsError(
            f"the output layer predicts {outputs:g} x the {in_channels} input channels",
            where="final_layer.linear.weight",
            fix="only noise (1 x) or noise and variance (2 x) are known",
        )
    frames = {"num_frames": weights[FRAMES].shape[1]} if FRAMES in weights else {}
    return {
        **frames,
        "depth": 1 + max(int(match[1]) for name in weights if (match := re.match(r"blocks\.(\d+)\.", name))),
        "hidden_size": hidden_size,
        "num_heads": options.get("num_heads") or _num_heads(hidden_size),
        "patch_size": patch_size,
        "input_size": options.get("input_size") or _side(weights["pos_embed"].shape[1]) * patch_size,
        "in_channels": in_channels,
        **_classes(weights, options.get("num_classes")),
        "mlp_ratio": weights["blocks.0.mlp.fc1.weight"].shape[0] / hidden_size,
        "learn_sigma": outputs == 2,
    }


def _side(positions: int) -> int:
    """Patches along a side of a square grid."""
    if math.isqrt(positions) ** 2 != positions:
        raise WeightsError(
            f"pos_embed has {positions} positions, which are no square",
            fix="pass input_size, height and width of the latents",
        )
    return math.isqrt(positions)


def _num_heads(hidden_size: int) -> int:
    if hidden_size not in NUM_HEADS:
        raise WeightsError(
            f"the tensors do not tell how many heads share a width of {hidden_size}",
            fix="pass num_heads",
        )
    return NUM_HEADS[hidden_size]


def _options(args: Any) -> dict[str, Any]:
    """The training options of the file as a dict: a Namespace, a mapping, or nothing."""
    known = vars(args) if isinstance(args, Namespace) else args
    return dict(known) if isinstance(known, Mapping) else {}


def _classes(weights: Mapping[str, Tensor], num_classes: int | None) -> dict[str, Any]:
    """The table's last row is the null class, unless there are as many rows as classes."""
    table = weights.get("y_embedder.embedding_table.weight")
    if table is None:
        return {"num_classes": 0, "null_class": True}
    rows = len(table)
    if num_classes is not None and rows not in (num_classes, num_classes + 1):
        raise WeightsError(f"the label table has {rows} rows", why=f"num_classes is given as {num_classes}")
    null_class = rows != num_classes
    return {"num_classes": rows - null_class, "null_class": null_class}


def _describe(name: str, tensor: Tensor) -> str:
    text = f"copied, {tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"
    if name not in ("pos_embed", FRAMES) or not tensor.is_floating_point() or tensor.is_meta:
        return text
    num, width = tensor.shape[1:]
    if name != FRAMES and math.isqrt(num) ** 2 != num:
        return text  # of latents that are not square: which table it should be, shapes do not tell
    table = sincos_1d(width, torch.arange(num)) if name == FRAMES else sincos_2d(width, math.isqrt(num))
    gap = (tensor[0].double() - table).abs().max().item()
    # half precision rounds sines near one by 4e-3 at most (bfloat16)
    return text if gap < 5e-3 else f"{text}; differs from the fixed table by up to {gap:.2g}"


def _why_left(name: str, value: Any, chosen: str) -> str:
    if name == "args":
        return "read for the number of classes"
    holds_weights = isinstance(value, Tensor) or (
        isinstance(value, Mapping) and any(find_parts(value, SIGNATURE))
    )
    return (
        f"not carried over: {chosen!r} holds the weights" if holds_weights else "not carried over: no weights"
    )


def _first(names: Collection[str], *, limit: int = 4) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(list(names)[:limit]) + more
