"""Every command, its options and what it prints. This card imports none of them."""

from __future__ import annotations

from genzoo.core.registry import COMMANDS

COMMANDS.lazy(
    "list",
    "genzoo.api.commands.list:list_command",
    help="List models, recipes and every registered name.",
)
COMMANDS.lazy(
    "show",
    "genzoo.api.commands.show:show_command",
    help="Print a recipe, or a run's, with every include expanded, and where each value comes from.",
)
COMMANDS.lazy(
    "validate",
    "genzoo.api.commands.validate:validate_command",
    help="Check recipes against the code they name; every problem is listed at once.",
)
COMMANDS.lazy(
    "train",
    "genzoo.api.commands.train:train_command",
    help="Train a recipe; the same command again continues an interrupted run.",
)
COMMANDS.lazy(
    "count",
    "genzoo.api.commands.count:count_command",
    help="Count parameters and multiply-adds of one forward pass.",
)
COMMANDS.lazy(
    "convert",
    "genzoo.api.commands.convert:convert_command",
    help="Turn released weights into a run that can be sampled.",
)
COMMANDS.lazy(
    "export",
    "genzoo.api.commands.export:export_command",
    help="Write a run's weights as one safetensors file, which `sample` and `evaluate` take like a run.",
)
COMMANDS.lazy(
    "rerun",
    "genzoo.api.commands.rerun:rerun_command",
    help="Train a run's own recipe again, with every change on the way, into a new folder.",
)
COMMANDS.lazy(
    "doctor",
    "genzoo.api.commands.doctor:doctor_command",
    help="Say what works on this machine, and why the rest does not.",
)
COMMANDS.lazy(
    "prepare latents",
    "genzoo.api.commands.latents:prepare_latents_command",
    help="Encode a recipe's images into data.latent_cache; later calls redo what changed.",
)
COMMANDS.lazy(
    "prepare controls",
    "genzoo.api.commands.controls:prepare_controls_command",
    help="Extract controls of a recipe's pictures, or of a folder, once; with a sheet to look at.",
)
COMMANDS.lazy(
    "launch",
    "genzoo.api.commands.launch:launch_command",
    help="Write a script that trains a recipe under torchrun, Slurm, Kubernetes or SkyPilot.",
)
COMMANDS.lazy(
    "prepare shards",
    "genzoo.api.commands.shards:prepare_shards_command",
    help="Note where each sample of tar shards is.",
)
COMMANDS.lazy(
    "prepare latent-statistics",
    "genzoo.api.commands.latent_statistics:latent_statistics_command",
    help="Measure mean and deviation of each channel of a recipe's latents.",
)
COMMANDS.lazy(
    "prepare check",
    "genzoo.api.commands.check:prepare_check_command",
    help="Look at all data before a run: classes, sizes, unreadable files, duplicates, captions.",
)
COMMANDS.lazy(
    "sample",
    "genzoo.api.commands.sample:sample_command",
    help="Sample pictures from a run; the same command again makes those that are missing.",
)
COMMANDS.lazy(
    "sweep",
    "genzoo.api.commands.sweep:sweep_command",
    help="Train a recipe under every combination of settings, and compare.",
)
COMMANDS.lazy(
    "evaluate",
    "genzoo.api.commands.evaluate:evaluate_command",
    help="Judge samples by a named protocol; the result states everything its numbers depend on.",
)
COMMANDS.lazy(
    "plot",
    "genzoo.api.commands.plot:plot_command",
    help="Draw losses, held-out losses and evaluations of runs against steps, samples and seconds, as PNG.",
)
COMMANDS.lazy(
    "push",
    "genzoo.api.commands.push:push_command",
    help="Put a run or a concept on the Hugging Face hub, with its recipe, samples and a page.",
)
COMMANDS.lazy(
    "compare",
    "genzoo.api.commands.compare:compare_command",
    help="Set results side by side: intervals, what differs for certain, every difference in protocol.",
)
