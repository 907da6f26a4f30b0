"""Released VQVAE, VAR and CAR weights to ours and back. Our keys are theirs: we check and report."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from genzoo.core.errors import WeightsError
from genzoo.core.types import Conversion
from genzoo.families.car.control.model import CAR
from genzoo.families.car.var.model import VAR
from genzoo.families.car.vqvae.model import VQVAE
from genzoo.families.car.weights.released_layouts import (
    BRANCH,
    branch_arguments,
    branch_of,
    check,
    find_branch,
    find_var,
    find_vqvae,
    require,
    tells_heads,
    var_arguments,
    vqvae_arguments,
    without_branch,
    without_discriminator,
)
from genzoo.pretrained.state_dicts import Part, groups, placed

BASE = "base."
Report = list[tuple[str, str | None, str]]


class VQVAEConverter:
    """vae_ch160v4096z32.pth and its kind; training states name it vae_local."""

    recipe = "vqvae_imagenet"

    def detect(self, tree: Mapping[str, Any]) -> bool:
        """Whether a VQVAE is what the file is about: beside a transformer it is an accessory."""
        return find_vqvae(tree) is not None and find_var(tree) is None and find_branch(tree) is None

    def to_genzoo(self, tree: Mapping[str, Any], **arguments: Any) -> Conversion:
        """Any VQVAE in the file, also one beside a transformer."""
        entry = require(find_vqvae(tree), tree, "VQVAE")
        known = vqvae_arguments(entry.weights, **arguments)
        weights = check(empty(VQVAE, known), entry.weights, source="these VQVAE weights")
        return Conversion("vqvae", known, weights, report(tree, entry, weights))

    def from_genzoo(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A bare state dict, as the released file is."""
        require(find_vqvae(weights), weights, "VQVAE")
        return without_discriminator(weights)


class VARConverter:
    """var_d16.pth and its kind, and the training states that hold var_wo_ddp."""

    recipe = "var_d16_imagenet"

    def detect(self, tree: Mapping[str, Any]) -> bool:
        """Whether the file holds a VAR without a control branch."""
        return find_var(tree) is not None and find_branch(tree) is None

    def to_genzoo(self, tree: Mapping[str, Any], **arguments: Any) -> Conversion:
        """The VAR; beside a control branch, the base alone."""
        entry = require(find_var(tree), tree, "VAR")
        learned = without_branch(entry.weights)
        known = var_arguments(learned, **arguments)
        weights = check(empty(VAR, known), learned, source="these VAR weights")
        return Conversion("var", known, weights, report(tree, entry, weights))

    def from_genzoo(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A bare state dict, as the released files are."""
        entry = require(find_var(weights), weights, "VAR")
        # where tensors do not tell the heads, no shape depends on them
        hidden = {} if tells_heads(entry.weights) else {"num_heads": 1}
        return check(empty(VAR, var_arguments(entry.weights, **hidden)), weights, source="these VAR weights")


class CARConverter:
    """car_canny_d16.pth and its kind: the branch alone, merged with its base, or in a training state."""

    recipe = "car_canny"

    def detect(self, tree: Mapping[str, Any]) -> bool:
        """Whether the file holds a control branch."""
        return find_branch(tree) is not None

    def to_genzoo(
        self, tree: Mapping[str, Any], *, var_weights: str | None = None, **arguments: Any
    ) -> Conversion:
        """The branch on its base, which is read from var_weights, or else from the file itself.

        A base from the file is stored with the branch and stays trainable, for want of a file to refer to.
        """
        entry = require(find_branch(tree), tree, "CAR")
        branch, inside = branch_of(entry.weights), without_branch(entry.weights)
        base = inside if var_weights is None else read_var(var_weights)
        if not base:
            raise WeightsError(
                "the file holds the control branch only",
                fix="name the VAR it stands on: var_weights=var_d16.pth",
            )
        known = var_arguments(base, **arguments) | branch_arguments(branch) | arguments
        known["freeze_base"] = var_weights is not None
        both = {BASE + name: value for name, value in base.items()} | branch
        weights = check(empty(CAR, known), both, source="these CAR weights")
        renamed = {name: (BASE + name) for name in inside} if var_weights is None else {}
        made = Conversion("car", known | {"var_weights": var_weights}, weights, [])
        made.report.extend(report(tree, entry, weights, renamed))
        return made

    def from_genzoo(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The branch alone, as the released files are."""
        branch = branch_of(weights)
        require(find_branch(branch), weights, "CAR")
        return branch


def empty(model: Callable[..., nn.Module], arguments: Mapping[str, Any]) -> nn.Module:
    """A model that takes no memory, for its names and shapes."""
    with torch.device("meta"):
        return model(**arguments)


def read_var(path: str) -> dict[str, Tensor]:
    """The tensors of a VAR in a file or run folder."""
    from genzoo.families.car.weights.loading import read_tree

    tree = read_tree(path)
    return without_branch(require(find_var(tree), tree, "VAR").weights)


def report(
    tree: Mapping[str, Any],
    entry: Part,
    weights: Mapping[str, Tensor],
    renamed: Mapping[str, str] | None = None,
) -> Report:
    """What became of every tensor of a file, and of everything else in it."""
    lines: Report = []
    for ours, theirs in entry.names.items():
        target = (renamed or {}).get(ours, ours)
        found = weights.get(target)
        if found is None:
            lines.append((theirs, None, f"not carried over: {_part(ours)}"))
        else:
            dtype = str(found.dtype).removeprefix("torch.")
            lines.append((theirs, target, f"copied, {tuple(found.shape)} {dtype}"))
    taken = set(entry.names.values())
    others = [path for path, tensors in groups(tree) if not taken.issuperset(placed(path, tensors))]
    lines += [(path or "the file's own tensors", None, "not carried over: other tensors") for path in others]
    covered = {line[0].partition(".")[0] for line in lines}
    rest = [name for name in tree if name.partition(".")[0] not in covered]
    return lines + [(name, None, "not carried over: no weights") for name in rest]


def _part(name: str) -> str:
    return "the control branch" if name.startswith(BRANCH) else "the base comes from var_weights"
