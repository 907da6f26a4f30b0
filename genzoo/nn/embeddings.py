"""Embeddings of positions, timesteps and class labels, laid out as in the released DiT weights."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from genzoo.core.errors import GenzooError, ShapeError, UsageError
from genzoo.core.seeds import SampleStreams
from genzoo.kernels.native.call import is_eager


def sincos_1d(dim: int, positions: Tensor) -> Tensor:
    """[sin(pos w_k) | cos(pos w_k)] with w_k = 10000^(-k / (dim/2)), in float64.

    positions: (l,).   Returns (l, dim).
    """
    if dim % 2:
        raise ShapeError(f"a sine-cosine embedding needs an even width, not {dim}")
    half = dim // 2
    k = torch.arange(half, dtype=torch.float64, device=positions.device)
    angles = torch.outer(positions.double(), 10000.0 ** (-k / half))
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def sincos_2d(dim: int, height: int, width: int | None = None) -> Tensor:
    """The fixed embedding of a grid of tokens, in float64: columns in the first half, rows in the second.

    Returns (height*width, dim), row-major. The order of the halves is DiT's (its grid puts w first).
    """
    if dim % 4:
        raise ShapeError(f"a 2-D sine-cosine embedding needs a width that is a multiple of 4, not {dim}")
    width = height if width is None else width
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.cat([sincos_1d(dim // 2, columns.flatten()), sincos_1d(dim // 2, rows.flatten())], dim=1)


def position_parameter(table: Tensor) -> nn.Parameter:
    """A fixed table (l, d) as the untrained parameter (1, l, d) that released weights hold."""
    return nn.Parameter(table[None].to(torch.get_default_dtype()), requires_grad=False)


def timestep_features(timesteps: Tensor, dim: int, *, max_period: float = 10000.0) -> Tensor:
    """[cos(t f_k) | sin(t f_k)], f_k = max_period^(-k / (dim/2)), in float32; an odd dim ends with a zero.

    timesteps: (b,), may be fractional.   Returns (b, dim) float32.
    """
    half = dim // 2
    # float32 in this order of operations: t reaches 999, so another rounding of f_k shows in the fifth digit
    k = torch.arange(half, dtype=torch.float32, device=timesteps.device)
    frequencies = torch.exp(-math.log(max_period) * k / half)
    angles = timesteps[:, None].float() * frequencies
    features = torch.cat([angles.cos(), angles.sin()], dim=1)
    return nn.functional.pad(features, (0, dim % 2))


class TimestepEmbedding(nn.Module):
    """Timestep features through a two-layer SiLU perceptron; weights N(0, 0.02)."""

    def __init__(self, hidden_size: int, *, num_features: int = 256) -> None:
        super().__init__()
        self.num_features = num_features
        self.mlp = nn.Sequential(
            nn.Linear(num_features, hidden_size), nn.SiLU(), nn.Linear(hidden_size, hidden_size)
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """N(0, 0.02) weights, zero biases."""
        for layer in (self.mlp[0], self.mlp[2]):
            nn.init.normal_(layer.weight, std=0.02)  # type: ignore[arg-type]
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(self, timesteps: Tensor) -> Tensor:
        """timesteps: (b,), the ORIGINAL index in [0, 1000) when sampling is respaced.   Returns (b, d)."""
        features = timestep_features(timesteps, self.num_features)
        embedding: Tensor = self.mlp(features.to(next(self.mlp.parameters()).dtype))
        return embedding


class LabelEmbedding(nn.Module):
    """A table of class embeddings N(0, 0.02); the null class of classifier-free guidance is row num_classes.

    null_class=False leaves that row out, for models that are never trained with dropped labels.
    """

    def __init__(self, num_classes: int, hidden_size: int, *, null_class: bool = True) -> None:
        super().__init__()
        if num_classes < 1:
            raise UsageError(f"a label embedding needs at least one class, not {num_classes}")
        self.num_classes = num_classes
        self.embedding_table = nn.Embedding(num_classes + null_class, hidden_size)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """N(0, 0.02)."""
        nn.init.normal_(self.embedding_table.weight, std=0.02)

    def forward(self, class_labels: Tensor) -> Tensor:
        """class_labels: (b,) integers; num_classes stands for "no label".   Returns (b, d)."""
        self._check_range(class_labels)
        embedding: Tensor = self.embedding_table(class_labels)
        return embedding

    def _check_range(self, class_labels: Tensor) -> None:
        # only where looking is free: an accelerator would wait for its queue, and asserts in the lookup
        if class_labels.device.type != "cpu" or not is_eager(class_labels) or not class_labels.numel():
            return
        rows = self.embedding_table.num_embeddings
        low, high = int(class_labels.min()), int(class_labels.max())
        if low < 0 or high >= rows:
            null = f" ({self.num_classes} is the null class)" if rows > self.num_classes else ""
            raise ShapeError(
                f"class labels span [{low}, {high}] but the model knows 0 to {rows - 1}{null}",
                fix=f"pass labels below {rows}, or build the model with num_classes={high + 1}",
            )


def drop_labels(
    class_labels: Tensor, probability: float, num_classes: int, generator: SampleStreams
) -> Tensor:
    """Replace each label by the null class with the given probability (classifier-free guidance training).

    class_labels: (b,).   generator: one stream per sample, so a sample's fate is independent of its batch.
    """
    if not 0.0 <= probability <= 1.0:
        raise UsageError(f"label dropout is a probability, not {probability}")
    dropped = generator.rand(class_labels.device) < probability
    return class_labels.masked_fill(dropped, num_classes)


def chosen_labels(num: int, class_labels: int | Sequence[int] | Tensor | None, num_classes: int) -> Tensor:
    """Labels of `num` samples, (num,) int64: one for all, one for each, or every class in turn.

    Raises UsageError for what is no whole number, for another number of labels, and for other classes.
    """
    labels = torch.arange(num) % num_classes if class_labels is None else _whole_labels(class_labels)
    labels = labels.expand(num) if labels.ndim == 0 else labels
    if labels.shape != (num,):
        raise UsageError(
            f"{labels.numel()} class_labels for {num} samples", fix="pass one for each, or one for all"
        )
    check_label_range(labels, num_classes, UsageError)
    return labels.long()


def _whole_labels(class_labels: int | Sequence[int] | Tensor) -> Tensor:
    try:
        labels = torch.as_tensor(class_labels)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        labels = torch.empty(0)
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise UsageError(
            f"class_labels are whole numbers, not {str(class_labels)[:80]!r}",
            fix="for example class_labels=[0,2]",
        )
    return labels


def check_label_range(labels: Tensor, num_classes: int, error: type[GenzooError]) -> None:
    """Raise `error`, naming the range seen, unless all labels are in [0, num_classes)."""
    # only where looking is free: on an accelerator it would wait for the queue
    if labels.device.type != "cpu" or not labels.numel():
        return
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= num_classes:
        raise error(
            f"class labels span [{low}, {high}] but the model has {num_classes} classes",
            fix=f"use labels from 0 to {num_classes - 1}",
        )
