"""A concept as other programs want it: which files, where they go there, and which words to type.

Each client gets a folder laid out as its own: what is below `models` goes into its `models`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from genzoo.core.errors import UsageError, WeightsError, did_you_mean
from genzoo.core.files import write_folder
from genzoo.families.custom_diffusion.files.base_weights import BaseWeights
from genzoo.families.custom_diffusion.files.concept import ConceptDelta
from genzoo.families.custom_diffusion.files.kohya import a1111_base, base_kind, invoke_base
from genzoo.families.custom_diffusion.files.transformer_clients import transformer_files
from genzoo.families.custom_diffusion.files.write_layouts import kohya_files, lora_files
from genzoo.families.custom_diffusion.lora.changes import Change
from genzoo.families.custom_diffusion.lora.write import peft_files
from genzoo.families.custom_diffusion.merge.low_rank import exact_factors

Files = dict[str, bytes]
LORA, PLAIN_LORA = "lora.safetensors", "pytorch_lora_weights.safetensors"


@dataclass(frozen=True)
class _Given:
    """A concept with full matrices, its base, and the name of its files."""

    delta: ConceptDelta
    base: BaseWeights
    stem: str

    @property
    def is_sdxl(self) -> bool:
        return any(len(rows) == 2 for rows in self.delta.tokens.values())

    @property
    def words(self) -> dict[str, str]:
        """The stem of each token's file: < and > are no letters of a word there."""
        return {token: token.strip("<>") for token in self.delta.tokens}

    def prompt(self, spelling: Callable[[str], str]) -> str:
        """A phrase of the concept with its words as a client wants them."""
        phrase = (self.delta.phrases or tuple(self.delta.tokens) or ("",))[0]
        return " ".join(spelling(word) if word in self.delta.tokens else word for word in phrase.split())


def export_for(
    delta: ConceptDelta,
    path: str | Path,
    *,
    client: str,
    base: BaseWeights,
    stem: str | None = None,
    replace: bool = False,
) -> tuple[Path, list[str]]:
    """Write one of CLIENTS' files into a new folder; the lines say where they go and what to type.

    stem: of the files' names, the folder's when left out.   replace: a folder that is there already. Raises
    UsageError, WeightsError.
    """
    if client not in CLIENTS:
        raise UsageError(
            f"there is no client {client!r}",
            fix=did_you_mean(client, CLIENTS) or f"one of {', '.join(CLIENTS)}",
        )
    full = delta.expanded(base)
    if delta.part == "transformer":
        files, lines = transformer_files(full, base, client)
    else:
        files, lines = CLIENTS[client](_Given(full, base, stem or Path(path).name))
    return write_folder(path, files, existing="replace" if replace else "refuse"), lines


def _a1111(given: _Given) -> tuple[Files, list[str]]:
    version = base_kind(given.delta.width, given.base.base, sdxl=given.is_sdxl).version
    shown = a1111_base({"ss_base_model_version": version, "ss_v2": str(version.startswith("sd_v2"))})
    files = _kohya(given, "models/Lora", "embeddings")
    words = given.prompt(lambda word: given.words[word])
    return files, [
        f"models/Lora/{given.stem}.safetensors -> models/Lora of the web UI; its tab Lora lists it under "
        f"{shown}",
        *(
            f"embeddings/{word}.safetensors -> embeddings, under this very name"
            for word in given.words.values()
        ),
        f"type: <lora:{given.stem}:1> photo of a {words}",
    ]


def _comfyui(given: _Given) -> tuple[Files, list[str]]:
    files = _kohya(given, "models/loras", "models/embeddings")
    words = given.prompt(lambda word: f"embedding:{given.words[word]}")
    return files, [
        f"models/loras/{given.stem}.safetensors -> models/loras; node Load LoRA with strength_model 1",
        *(
            f"models/embeddings/{word}.safetensors -> models/embeddings, under this very name"
            for word in given.words.values()
        ),
        f"type: photo of a {words}",
    ]


def _invoke(given: _Given) -> tuple[Files, list[str]]:
    files = _kohya(given, "loras", "embeddings")
    width = given.delta.width
    found = invoke_base({"lora_unet_x_attn2_to_k.lora_down.weight": (1, width)})
    if found is None:
        raise WeightsError(
            f"InvokeAI would refuse these files: it knows bases by text {width} wide as nothing",
            why="768 is Stable Diffusion 1, 1024 is 2, 2048 is XL",
            fix="a concept of such a base",
        )
    words = given.prompt(lambda word: f"<{given.words[word]}>")
    return files, [
        f"loras/{given.stem}.safetensors: add it in the model manager, which takes it for {found}",
        *(
            f"embeddings/{word}.safetensors: add it there too, under this name"
            for word in given.words.values()
        ),
        f"type: photo of a {words}, with the LoRA at weight 1; a weight of words is written (word)1.2",
    ]


def _diffusers(given: _Given) -> tuple[Files, list[str]]:
    files = lora_files(given.delta, given.base)
    lines = [f'pipeline.load_lora_weights(FOLDER, weight_name="{PLAIN_LORA}")']
    for token in given.delta.tokens:
        place = f'"{token}.safetensors"'
        if given.is_sdxl:
            lines += [
                f"rows = safetensors.torch.load_file(FOLDER + '/' + {place})",
                f'pipeline.load_textual_inversion(rows["clip_l"], token="{token}", '
                "tokenizer=pipeline.tokenizer, text_encoder=pipeline.text_encoder)",
                f'pipeline.load_textual_inversion(rows["clip_g"], token="{token}", '
                "tokenizer=pipeline.tokenizer_2, text_encoder=pipeline.text_encoder_2)",
            ]
        else:
            lines.append(f"pipeline.load_textual_inversion(FOLDER, weight_name={place})")
    return files, [*lines, f"type: photo of a {given.prompt(lambda word: word)}"]


def _peft(given: _Given) -> tuple[Files, list[str]]:
    _check_bases(given)
    changes = {
        name.removesuffix(".weight"): Change(*exact_factors(weight.double() - given.base[name].double()))
        for name, weight in given.delta.weights.items()
    }
    files = peft_files(changes)
    plain = lora_files(given.delta, given.base)
    tokens = {name: content for name, content in plain.items() if name != PLAIN_LORA}
    loads = [f'pipeline.load_textual_inversion(FOLDER, weight_name="{name}")' for name in tokens]
    return files | tokens, [
        "pipeline.unet = peft.PeftModel.from_pretrained(pipeline.unet, FOLDER)",
        *(loads if not given.is_sdxl else ["words: as genzoo export --for diffusers says"]),
        f"type: photo of a {given.prompt(lambda word: word)}",
    ]


CLIENTS: dict[str, Callable[[_Given], tuple[Files, list[str]]]] = {
    "a1111": _a1111,
    "comfyui": _comfyui,
    "diffusers": _diffusers,
    "invoke": _invoke,
    "peft": _peft,
}


def _kohya(given: _Given, loras: str, words: str) -> Files:
    """kohya's file and one file a word, in the client's own folders, under names that the client shows."""
    files = kohya_files(given.delta, given.base, name=given.stem)
    lora = files.pop(LORA)
    return {f"{loras}/{given.stem}.safetensors": lora} | {
        f"{words}/{name}": content for name, content in files.items()
    }


def _check_bases(given: _Given) -> None:
    strange = [name for name in given.delta.weights if name.endswith("bias")]
    if strange:
        raise WeightsError(
            "LoRA has no place for the trained biases of attn2.to_out", fix="write the layout genzoo"
        )
