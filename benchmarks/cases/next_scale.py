"""One 256-px picture by VAR-d16 and CAR-d16 with guidance, beside the same weights in the published form."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from benchmarks.measure import CLOCKS, compare
from benchmarks.plain_next_scale import plain_decoder
from benchmarks.registry import Options, case
from genzoo.api import create_model
from genzoo.autoregression.sampling import sample_scales
from genzoo.core.memory import freed_memory_kept
from genzoo.core.seeds import SampleStreams
from genzoo.families.car.control.decoder import decoder_of
from genzoo.families.car.control.inputs import control_inputs
from genzoo.families.car.control.model import CAR
from genzoo.families.car.task import NextScaleTask
from genzoo.families.car.var.sampler_options import draw_options
from genzoo.families.car.vqvae.codec import VQVAECodec
from genzoo.families.car.vqvae.model import VQVAE
from genzoo.nn.evaluating import evaluating
from genzoo.nn.packed import packs_kept

PEER = "published form"
TARGETS = {"VAR fp32": 1.1, "VAR bf16": 2.2, "CAR fp32 first": 1.1, "CAR bf16 first": 2.2}
LABEL = 207
PARTS = ("control", "blocks", "sampling", "decode")
SAMPLER = {"guidance_scale": 5.0, "top_k": 900, "top_p": 0.95}


@dataclass
class Stopwatch:
    """Seconds by part."""

    clock: Callable[[], float]
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PARTS, 0.0))

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Add what happens inside to a part."""
        start = self.clock()
        yield
        self.seconds[name] += self.clock() - start


def draw(
    task: NextScaleTask, precision: str, control: Tensor | None, watch: Stopwatch, *, plain: bool = False
) -> list[Tensor]:
    """The tokens of one picture, drawn as `task.sample` draws it or in the published form, timed by part."""
    model: Any = task.model if plain or precision == "fp32" else task.half(task.model)
    model = model if control is not None else getattr(model, "base", model)
    labels = torch.tensor([LABEL, model.num_classes])  # the second half without a class, for guidance
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=plain and precision == "bf16")
    with autocast, contextlib.nullcontext() if plain else evaluating(model):
        predict = (plain_prediction if plain else prediction)(task, model, labels, control, watch)

        def timed(scale: int, read: Tensor | None) -> Tensor:
            with watch.part("blocks"):
                return predict(scale, read)

        before, start = watch.seconds["blocks"], watch.clock()
        streams = SampleStreams.from_seeds(0, "sample", positions=[0])
        options = draw_options(task.sampler)
        drawn = sample_scales(timed, task.codec.quantizer, task.codec.patch_nums, streams, options)
        watch.seconds["sampling"] += watch.clock() - start - (watch.seconds["blocks"] - before)
        with watch.part("decode"):
            own = "fp32" if plain else precision
            pixels = task.codec.decode(drawn.f_hat.float(), precision=own)  # type: ignore[arg-type]
    if not pixels.isfinite().all():
        raise RuntimeError("the picture is not finite; no timing")
    return drawn.ids


def prediction(
    task: NextScaleTask, model: Any, labels: Tensor, control: Tensor | None, watch: Stopwatch
) -> Callable[[int, Tensor | None], Tensor]:
    """What predicts in `task.sample`: modulations once, one block of memory, controls encoded once."""
    features = None
    if control is not None:
        with watch.part("control"):
            features = task.encode_control(model, control)
    with watch.part("blocks"):
        return decoder_of(model, labels, features)


def plain_prediction(
    task: NextScaleTask, model: Any, labels: Tensor, control: Tensor | None, watch: Stopwatch
) -> Callable[[int, Tensor | None], Tensor]:
    """The published form, whose control is encoded at every picture."""
    if control is None:
        return plain_decoder(model, labels)
    with watch.part("control"):
        pictures = control_inputs(model, task.codec, control, exact=True)
    return plain_decoder(model, labels, pictures)


@torch.no_grad()
def rounds(
    task: NextScaleTask, name: str, precision: str, control: Callable[[], Tensor | None], options: Options
) -> dict[str, Any]:
    """A row: our seconds and the published form's, turn by turn; and our parts."""
    clock = CLOCKS[options.settings.get("clock", "wall")]
    first = control()
    same = tokens_shared(*(draw(task, precision, first, Stopwatch(clock), plain=p) for p in (False, True)))
    seconds: dict[str, list[float]] = {"genzoo": [], PEER: []}
    watches = []
    # as `genzoo sample` does for all of its pictures; the published form has its memory kept as well
    with freed_memory_kept(), packs_kept():
        draw(task, precision, first, Stopwatch(clock))
        for _ in range(options.repeats):
            given = control()
            for who, plain in (("genzoo", False), (PEER, True)):
                watch, start = Stopwatch(clock), clock()
                draw(task, precision, given, watch, plain=plain)
                seconds[who].append(clock() - start)
                watches += [] if plain else [watch.seconds]
    row = compare("genzoo", seconds)
    middle = watches[seconds["genzoo"].index(sorted(seconds["genzoo"])[options.repeats // 2])]
    parts = {f"{part}_ms": 1e3 * middle[part] for part in PARTS}
    row |= {"memory": "freed memory kept for both"}
    return {"name": name, **row, **parts, "tokens_shared": same, "target": TARGETS.get(name)}


def tokens_shared(ours: list[Tensor], theirs: list[Tensor]) -> float:
    """Share of a picture's tokens that both forms drew alike. Raises AssertionError where the first differ.

    Random weights leave tokens nearly even, and one that rounding turned changes those after it.
    """
    if not torch.equal(ours[0], theirs[0]):
        raise AssertionError("the published form draws another first token; not timed")
    return float((torch.cat(ours, 1) == torch.cat(theirs, 1)).float().mean())


def build_task() -> NextScaleTask:
    """CAR-d16 on VAR-d16 with the VQVAE of 108 M, all with random weights."""
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "vqvae.safetensors"
        save_file(VQVAE().state_dict(), weights)
        codec = VQVAECodec(str(weights))
    model = create_model("car_d16")
    assert isinstance(model, CAR)
    return NextScaleTask(model.eval(), codec=codec, sampler={"name": "next_scale", **SAMPLER})


def pictures_like(seed: int) -> Callable[[], Tensor]:
    """What makes another control picture (1, 3, 256, 256) at each call."""
    generator = torch.Generator().manual_seed(seed)
    return lambda: torch.rand(1, 3, 256, 256, generator=generator) * 2 - 1


@case("next_scale_sampling")
def next_scale_sampling(options: Options) -> list[dict[str, Any]]:
    """A 256-px picture by VAR-d16 and CAR-d16: fp32 and bf16, first control and reused control."""
    task, fresh = build_task(), pictures_like(0)
    reused = fresh()
    rows = []
    for precision in options.settings.get("precision", "fp32,bf16").split(","):
        var = rounds(task, f"VAR {precision}", precision, lambda: None, options)
        first = rounds(task, f"CAR {precision} first", precision, fresh, options)
        again = rounds(task, f"CAR {precision} reused", precision, lambda: reused, options)
        for row in (first, again):
            row["added_to_var"] = row["ms"]["genzoo"]["median"] / var["ms"]["genzoo"]["median"] - 1
        again["target_added"] = 0.4
        rows += [var, first, again]
    return rows
