"""Every command that writes, with words that make it write to OUT; those that do not write are named, too."""

from __future__ import annotations

from dataclasses import dataclass

NOTHING = {"list", "show", "validate", "count", "doctor", "prepare check", "app"}
"""Commands that write no file themselves: the page of `app` starts others."""


@dataclass(frozen=True)
class Writing:
    """words: of a command line, run in the folder of `command_inputs.build_inputs`.

    out: the name of OUT; one with a suffix is a file's.   inside: a file that it makes in OUT, which is all
    that is refused, because other files may lie there.   same: which files have the same bytes each time.
    """

    words: str
    out: str = "out"
    inside: str = ""
    same: str = "**/*"

    @property
    def command(self) -> str:
        """Its name on the command line."""
        first, second = self.words.split()[:2]
        return f"{first} {second}" if first == "prepare" else first

    def __str__(self) -> str:
        return f"{self.command}-{self.words.split()[-1]}-{self.out}"


JUDGE = "evaluate pictures --reference pictures --protocol quick-pixels --num 8 --output"
MERGE = "merge-concepts concept1.safetensors concept2.safetensors --base base --captions captions.txt -o OUT"
CONCEPT = "convert-concept concept1.safetensors --base base -o OUT --to"
EDIT = "edit-concepts edits.json --base base --captions captions.txt -o OUT"
PLAIN = "train.steps=2 train.checkpoint_every=2"
WRITING = (
    Writing(f"train plain.yaml {PLAIN} --output OUT", same="checkpoints/**/*"),
    Writing("rerun run --steps 2 --output OUT", same="checkpoints/**/*"),
    Writing(
        "convert foreign.safetensors OUT --recipe plain.yaml --argument num_heads=2", same="checkpoints/**/*"
    ),
    Writing("export run OUT", "out.safetensors"),
    Writing("export run OUT --to dit --half", "out.safetensors"),
    Writing("push run someone/model --dry-run OUT", same=""),  # what it says of a run is not promised
    Writing("sample run --num 3 --out OUT --npz"),
    Writing(
        "evaluate pictures --reference pictures --protocol quick-pixels --num 8 --output OUT",
        "out.json",
        same="",
    ),  # a result tells how long it took
    Writing("compare first.json second.json --output OUT"),
    Writing("plot run --output OUT"),
    Writing("sweep plain.yaml train.seed=1,2 --output OUT", same=""),  # of ordinary trainings
    Writing("launch slurm plain.yaml --output OUT", "out.sh"),
    Writing("teach cat pictures/class_0 --base base --num-class 0 --no-train -o OUT"),
    Writing(MERGE),
    Writing(MERGE, "out.safetensors"),
    *[Writing(f"{CONCEPT} {layout}") for layout in ("diffusers", "lora", "kohya")],
    Writing(f"{CONCEPT} genzoo", "out.safetensors"),
    Writing(f"{CONCEPT} official", "out.bin"),
    Writing(f"{CONCEPT} compvis", "out.ckpt"),
    Writing(EDIT),
    Writing(EDIT, "out.safetensors"),
    Writing("prepare latents latents.yaml data.latent_cache=OUT", same="shard-*"),
    Writing("prepare latent-statistics latents.yaml -o OUT", "out.json", same=""),  # asks for an autoencoder
    Writing("prepare controls pictures/class_0 --control canny -o OUT"),
    Writing("prepare regularization cat --folder pictures/class_0 --num 2 -o OUT"),
    Writing("prepare shards shards -o OUT", inside="part-0.tar.index.safetensors"),
)
