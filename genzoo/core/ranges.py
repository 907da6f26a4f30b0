"""Which numbers make sense, by the name of a setting: the same word means the same everywhere.

Said once, for recipes, options of sampling and arguments of models alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from genzoo.core.limits import MAX_AT_ONCE
from genzoo.core.sizes import scales_problem, shape_problem, size_problem


class Range(NamedTuple):
    """Bounds of a number. A bound that is `open` is not reached."""

    least: float
    most: float = float("inf")
    open_below: bool = False
    open_above: bool = False

    def __contains__(self, value: object) -> bool:
        if not isinstance(value, (int, float)):
            return False
        low = value > self.least if self.open_below else value >= self.least
        return low and (value < self.most if self.open_above else value <= self.most)

    def __str__(self) -> str:
        low = f"{'above' if self.open_below else 'at least'} {_shown(self.least)}"
        if self.most == float("inf"):
            return low
        return f"{low} and {'below' if self.open_above else 'at most'} {_shown(self.most)}"

    def broken_by(self, numbers: Sequence[float]) -> str:
        """What numbers should be that are not: of a safety's bound no word where they are too small."""
        if self.most < SAFETY:
            return str(self)
        too_large = any(number > self.most for number in numbers)
        return f"at most {_shown(self.most)}" if too_large else str(self._replace(most=float("inf")))


def _shown(bound: float) -> str:
    return f"{bound:,}" if isinstance(bound, int) else f"{bound:g}"


# safeties are far beyond all use: they stop what would fill a machine before anything says no
SAFETY = 1024
DEEP, WIDE, SIDE = Range(1, SAFETY), Range(1, 2**20), Range(1, 2**16)
AT_ONCE, MANY = Range(1, MAX_AT_ONCE), Range(1, 10**9)
COUNT, NOT_NEGATIVE, POSITIVE = Range(1), Range(0), Range(0, open_below=True)
SHARE, PROBABILITY = Range(0, 1, open_above=True), Range(0, 1)

RANGES: dict[str, Range] = {
    **dict.fromkeys(("depth", "num_res_blocks", "layers_per_block", "text_layers"), DEEP),
    **dict.fromkeys(("hidden_size", "num_heads", "in_channels", "channels", "control_channels"), WIDE),
    **dict.fromkeys(("z_channels", "latent_channels", "block_out_channels", "ch", "ch_mult"), WIDE),
    **dict.fromkeys(("codebook_size", "text_width", "text_heads", "d_state", "d_conv"), WIDE),
    **dict.fromkeys(("patch_size", "image_size", "input_size", "sprite_size", "rows", "columns"), SIDE),
    **dict.fromkeys(("num_frames", "frame_interval", "grid", "latent_shape"), SIDE),
    **dict.fromkeys(("clips_per_digit", "clips_per_emoji", "places_per_digit"), SIDE),
    **dict.fromkeys(("block_size", "slice_size", "batch_size", "micro_batch_size"), AT_ONCE),
    **dict.fromkeys(("steps",), MANY),
    **dict.fromkeys(("max_pixels", "num", "window", "samples_per_prompt"), COUNT),
    **dict.fromkeys(("lr", "eps", "weight_decay", "final_weight_decay", "momentum", "eta"), NOT_NEGATIVE),
    **dict.fromkeys(("warmup_steps", "top_k", "use_image_num", "max_shift"), NOT_NEGATIVE),
    **dict.fromkeys(("k", "pairs", "shown", "tolerance"), NOT_NEGATIVE),
    **dict.fromkeys(("num_classes",), Range(0, 10**8)),
    **dict.fromkeys(("mlp_ratio", "scaling_factor", "temperature", "shift", "fps", "expand"), POSITIVE),
    **dict.fromkeys(("perplexity",), POSITIVE),
    **dict.fromkeys(("label_dropout", "caption_dropout", "drop_path", "wrong_tokens", "betas"), SHARE),
    **dict.fromkeys(("top_p", "warmup_start", "hold", "final"), PROBABILITY),
}


SHAPES: dict[str, Callable[[Any], str | None]] = {
    **dict.fromkeys(("image_size", "input_size"), size_problem),
    "latent_shape": shape_problem,
    "patch_nums": scales_problem,
}
"""Settings that are lists of a certain form."""


def range_problem(name: str, value: Any) -> str | None:
    """'must be at least 1, not 0' for a number, or a list of them, that a setting of that name cannot be."""
    misshapen = SHAPES[name](value) if name in SHAPES else None
    if misshapen:
        return misshapen
    known = RANGES.get(name)
    numbers = value if isinstance(value, (list, tuple)) else [value]
    if known is None or not all(
        isinstance(one, (int, float)) and not isinstance(one, bool) for one in numbers
    ):
        return None
    if all(one in known for one in numbers):
        return None
    return f"must be {known.broken_by(numbers)}, not {value!r}"
