"""Which numbers make sense, by the name of a setting: the same word means the same everywhere.

Said once, for recipes, options of sampling and arguments of models alike.
"""

from __future__ import annotations

from typing import Any, NamedTuple


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
        low = f"above {self.least:g}" if self.open_below else f"at least {self.least:g}"
        if self.most == float("inf"):
            return low
        return f"{low} and {'below' if self.open_above else 'at most'} {self.most:g}"


COUNT, NOT_NEGATIVE, POSITIVE = Range(1), Range(0), Range(0, open_below=True)
SHARE, PROBABILITY = Range(0, 1, open_above=True), Range(0, 1)

RANGES: dict[str, Range] = {
    **dict.fromkeys(("steps", "block_size", "slice_size", "depth", "hidden_size", "num_heads"), COUNT),
    **dict.fromkeys(("patch_size", "image_size", "num_frames", "frame_interval", "in_channels"), COUNT),
    **dict.fromkeys(("d_state", "d_conv", "max_pixels", "rows", "columns", "input_size"), COUNT),
    **dict.fromkeys(("lr", "eps", "weight_decay", "final_weight_decay", "momentum", "eta"), NOT_NEGATIVE),
    **dict.fromkeys(("num_classes", "warmup_steps", "top_k", "use_image_num"), NOT_NEGATIVE),
    **dict.fromkeys(("mlp_ratio", "scaling_factor", "temperature", "shift", "fps", "expand"), POSITIVE),
    **dict.fromkeys(("label_dropout", "caption_dropout", "drop_path", "betas"), SHARE),
    **dict.fromkeys(("top_p", "warmup_start", "hold", "final"), PROBABILITY),
}


def range_problem(name: str, value: Any) -> str | None:
    """'must be at least 1, not 0' for a number, or one in a list, that the setting of that name cannot be."""
    known = RANGES.get(name)
    numbers = value if isinstance(value, (list, tuple)) else [value]
    if known is None or not all(
        isinstance(one, (int, float)) and not isinstance(one, bool) for one in numbers
    ):
        return None
    return None if all(one in known for one in numbers) else f"must be {known}, not {value!r}"
