"""What a recipe's `train:` section says, and the batch arithmetic that follows from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from genzoo.core.errors import RecipeError, did_you_mean
from genzoo.core.limits import MAX_AT_ONCE, MAX_WORKERS

Precision = Literal["fp32", "bf16", "fp16", "fp64"]
TRACKERS = ("wandb", "trackio", "mlflow")
SNAPSHOTS = 16
LONGEST = 12**-0.5  # relative length of an average that weighs all steps alike
Sharding = Literal["none", "full", "hybrid"]
Saving = Literal["foreground", "background"]
SAVINGS: tuple[Saving, ...] = ("foreground", "background")
SHARDINGS: tuple[Sharding, ...] = ("none", "full", "hybrid")
PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16", "fp16", "fp64")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How long, how big, how safe.

    steps: optimizer steps.   batch_size: samples in one optimizer step, over all processes.
    micro_batch_size: samples that one process holds at once; None takes them all, a smaller one accumulates.
    checkpoint_every: steps between checkpoints; one is also made at the end and on a signal.
    save: "foreground" writes a checkpoint between two steps; "background" copies it into this machine's
        memory and writes the copy beside the steps that follow, one at a time.
    keep_last: newest checkpoints kept.   keep_every: multiples of it are kept for good; 0 keeps none.
    precision: of the model's arithmetic; weights stay float32, except under fp64.
    clip_grad_norm: largest norm of the whole gradient; None never clips.   clip_after: steps before that.
    ema_decay: of the averaged weights, constant from the first step on as in the papers; None: no average.
    ema_ramp, ema_use_warmup: let it grow instead, as diffusers' EMAModel does without and with its warm-up;
        the other ema_* are its options.
    ema_profiles: relative lengths of averages that are stored so that any length can be had after training,
        such as [0.04, 0.08, 0.16]; `genzoo sample RUN ema=0.05`.   ema_snapshot_every: steps between two
        storings; None stores sixteen times.
    ema_schedule: pairs [steps, decay]: after so many steps, that decay takes the place of ema_decay.
    log_every: steps between log lines.
    max_bad: unreadable data items that may be replaced; every process counts them anew from its start.
    loader_timeout: seconds to wait for a batch; then the run names what it was reading, and ends after a
        checkpoint. None waits for ever.
    tensorboard: also write tensorboard/ into the run folder.   trackers: of wandb, trackio and mlflow, those
        that get the metrics and previews too; keys come from their own login or environment.
    tracker_project: under which project or experiment.
    deterministic: only deterministic kernels, which may be slow on a GPU and are the rule on a CPU.
    collective_timeout: seconds after which a process gives up waiting for the others.
    sharding: "full" shares weights, gradients, averages and optimizer out over all processes, "hybrid" over
        groups of `shard_size`, by default those of one machine; "none" keeps all of it in each.
    frozen_in_16_bits: under bf16 or fp16, weights that are not trained lie in memory rounded as the steps
        read them anyway; losses, gradients and checkpoints stay the same. Previews during training use the
        rounded weights, and hold them in float32 meanwhile.
    compile: blocks are compiled by torch.compile at their first call; weights keep their names.
    allow_tf32: on a GPU, float32 products keep 10 bits of their factors' fractions and are several times
        faster.
    """

    steps: int
    batch_size: int
    micro_batch_size: int | None = None
    seed: int = 0
    checkpoint_every: int = 1000
    save: Saving = "foreground"
    keep_last: int = 3
    keep_every: int = 0
    precision: Precision = "fp32"
    clip_grad_norm: float | None = None
    clip_after: int = 0
    ema_decay: float | None = 0.9999
    ema_min_decay: float = 0.0
    ema_update_after_step: int = 0
    ema_ramp: bool = False
    ema_use_warmup: bool = False
    ema_inv_gamma: float = 1.0
    ema_power: float = 2 / 3
    ema_schedule: Sequence[Sequence[float]] = ()
    ema_profiles: Sequence[float] = ()
    ema_snapshot_every: int | None = None
    log_every: int = 10
    num_workers: int = 0
    loader_timeout: float | None = None
    max_bad: int = 0
    tensorboard: bool = True
    trackers: Sequence[str] = ()
    tracker_project: str = "genzoo"
    deterministic: bool = False
    collective_timeout: float = 1800.0
    sharding: Sharding = "none"
    shard_size: int | None = None
    frozen_in_16_bits: bool = False
    compile: bool = False
    allow_tf32: bool = False

    @property
    def snapshot_every(self) -> int:
        """Steps between two storings of the averages to combine."""
        return self.ema_snapshot_every or -(-self.steps // SNAPSHOTS)

    def __post_init__(self) -> None:
        problems = [*_counts(self), *_fractions(self), *_ema_schedule(self), *_profiles(self)]
        problems += [*_sharding(self), *_frozen(self)]
        unknown = [name for name in self.trackers if name not in TRACKERS]
        if unknown:
            hint = did_you_mean(str(unknown[0]), TRACKERS) or f"known are {', '.join(TRACKERS)}"
            problems.append(f"train.trackers: there is no tracker {unknown[0]!r}; {hint}")
        if self.save not in SAVINGS:
            problems.append(f"train.save: {self.save!r} is not one of {', '.join(SAVINGS)}")
        if self.precision not in PRECISIONS:
            problems.append(f"train.precision: {self.precision!r} is not one of {', '.join(PRECISIONS)}")
        if problems:
            raise RecipeError("\n".join(problems))


def _counts(config: TrainConfig) -> list[str]:
    at_least_one = ("steps", "batch_size", "checkpoint_every", "keep_last", "log_every")
    values = {name: getattr(config, name) for name in at_least_one}
    if config.micro_batch_size is not None:
        values["micro_batch_size"] = config.micro_batch_size
    problems = [
        f"train.{name}: must be at least 1, not {value!r}" for name, value in values.items() if value < 1
    ]
    problems += [
        f"train.{name}: must be at most {MAX_AT_ONCE:,}, not {values[name]!r}"
        for name in ("batch_size", "micro_batch_size")
        if values.get(name, 1) > MAX_AT_ONCE
    ]
    if config.num_workers > MAX_WORKERS:
        problems.append(f"train.num_workers: must be at most {MAX_WORKERS}, not {config.num_workers}")
    for name in ("keep_every", "num_workers", "max_bad", "ema_update_after_step", "clip_after"):
        if getattr(config, name) < 0:
            problems.append(f"train.{name}: must not be negative, not {getattr(config, name)!r}")
    return problems


def _fractions(config: TrainConfig) -> list[str]:
    problems = []
    if config.clip_after and config.clip_grad_norm is None:
        problems.append("train.clip_after: nothing is clipped, clip_grad_norm is null")
    if config.ema_decay is not None and not 0 <= config.ema_decay < 1:
        problems.append(
            f"train.ema_decay: must lie in [0, 1), or be null for no average, not {config.ema_decay!r}"
        )
    if config.ema_ramp and config.ema_use_warmup:
        problems.append(
            "train.ema_ramp: ema_use_warmup names another growth of the decay; choose one of them"
        )
    if config.clip_grad_norm is not None and not config.clip_grad_norm > 0:
        problems.append(f"train.clip_grad_norm: must be positive, or null, not {config.clip_grad_norm!r}")
    if config.loader_timeout is not None and not config.loader_timeout > 0:
        problems.append(f"train.loader_timeout: must be positive, or null, not {config.loader_timeout!r}")
    if not config.collective_timeout > 0:
        problems.append(f"train.collective_timeout: must be positive, not {config.collective_timeout!r}")
    return problems


def _ema_schedule(config: TrainConfig) -> list[str]:
    pairs = [tuple(pair) for pair in config.ema_schedule]
    key = "train.ema_schedule:"
    if pairs and config.ema_decay is None:
        return [f"{key} there is no average to schedule, ema_decay is null"]
    wrong = [pair for pair in pairs if len(pair) != 2 or pair[0] < 1 or not 0 <= pair[1] < 1]
    if wrong:
        return [f"{key} {list(wrong[0])} is no pair [steps, decay], steps at least 1, decay in [0, 1)"]
    starts = [start for start, _ in pairs]
    return [f"{key} steps must grow, these are {starts}"] if starts != sorted(set(starts)) else []


def _profiles(config: TrainConfig) -> list[str]:
    lengths = list(config.ema_profiles)
    wrong = [length for length in lengths if not 0 < length < LONGEST]
    if wrong:
        return [f"train.ema_profiles: relative lengths lie between 0 and {LONGEST:.3f}, not {wrong[0]!r}"]
    if len(set(lengths)) < len(lengths) or len(lengths) == 1:
        return [f"train.ema_profiles: two or more different lengths are needed, not {lengths}"]
    if config.ema_snapshot_every is not None and config.ema_snapshot_every < 1:
        return [f"train.ema_snapshot_every: must be at least 1, not {config.ema_snapshot_every}"]
    return []


def _sharding(config: TrainConfig) -> list[str]:
    if config.sharding not in SHARDINGS:
        return [f"train.sharding: {config.sharding!r} is not one of {', '.join(SHARDINGS)}"]
    if config.shard_size is not None and (config.sharding != "hybrid" or config.shard_size < 2):
        return [f"train.shard_size: {config.shard_size!r} is for sharding: hybrid, and at least 2"]
    if config.sharding != "none" and config.compile:
        return ["train.compile: blocks that are shared out are not compiled; use sharding: none"]
    if config.sharding != "none" and config.precision == "fp16":
        return ["train.sharding: fp16's loss scale is untested over shards; use precision: bf16"]
    return []


def _frozen(config: TrainConfig) -> list[str]:
    if not config.frozen_in_16_bits:
        return []
    if config.precision not in ("bf16", "fp16"):
        return [f"train.frozen_in_16_bits: under {config.precision} steps read all bits; use precision: bf16"]
    if config.sharding != "none":
        return ["train.frozen_in_16_bits: shards are of one type; use sharding: none"]
    return []
