"""A concept of a base with a transformer for diffusers and PEFT, and why other programs get none.

Words are rows for T5, Gemma or BERT, which `load_textual_inversion` does not know: they come as one file, and
as the lines that put them into tokenizer and text encoder.
"""

from __future__ import annotations

import torch

from genzoo.core.errors import UsageError, WeightsError
from genzoo.core.tensor_layout import tensor_bytes
from genzoo.families.custom_diffusion.edit.attention_models import WITHOUT_LORA
from genzoo.families.custom_diffusion.edit.text_models import transformer_class
from genzoo.families.custom_diffusion.files.base_weights import BaseWeights
from genzoo.families.custom_diffusion.files.concept import ConceptDelta
from genzoo.families.custom_diffusion.lora.changes import Change
from genzoo.families.custom_diffusion.lora.write import diffusers_lora_bytes, peft_files
from genzoo.families.custom_diffusion.merge.low_rank import exact_factors

Files = dict[str, bytes]
LORA, WHOLE, WORDS = "pytorch_lora_weights.safetensors", "transformer.safetensors", "words.safetensors"
NOT_FOR = {
    "a1111": ("the web UI A1111", "it runs Stable Diffusion 1, 2 and XL"),
    "comfyui": ("ComfyUI", "it names layers as the base's original code does, and genzoo as diffusers does"),
    "invoke": ("InvokeAI", "it takes concepts of Stable Diffusion 1, 2 and XL"),
}
"""What of it gets no files, and why."""


def transformer_files(delta: ConceptDelta, base: BaseWeights, client: str) -> tuple[Files, list[str]]:
    """The files of a client, and the lines of Python that load them; FOLDER is where they lie.

    Raises WeightsError for a client that cannot use them.
    """
    kind = transformer_class(base.base)
    if client in NOT_FOR:
        name, why = NOT_FOR[client]
        raise WeightsError(
            f"{name} gets no files of a concept of {kind}", why=why, fix="--for diffusers, or --for peft"
        )
    if client == "peft":
        files = peft_files(_changes(delta, base))
        lines = [
            "pipeline.transformer = peft.PeftModel.from_pretrained(pipeline.transformer, FOLDER)"
            ".merge_and_unload()"
        ]
    elif kind in WITHOUT_LORA:
        weights = {name: weight.float().contiguous() for name, weight in delta.weights.items()}
        files = {WHOLE: tensor_bytes(weights, {"format": "pt"})}
        lines = [
            f"# the pipeline of {kind} in diffusers cannot load a LoRA: these are whole matrices",
            f'weights = safetensors.torch.load_file(FOLDER + "/{WHOLE}")',
            "pipeline.transformer.load_state_dict(weights, strict=False)",
        ]
    else:
        files = {LORA: diffusers_lora_bytes(_changes(delta, base))}
        lines = [f'pipeline.load_lora_weights(FOLDER, weight_name="{LORA}")']
    return files | words_file(delta), [*lines, *_word_lines(delta), _typed(delta)]


def transformer_layout(delta: ConceptDelta, base: object, layout: str) -> Files:
    """Of the layout "lora", for pipelines that load one. Raises WeightsError for other layouts, which are of
    bases with a UNet, and for other pipelines.
    """
    if layout != "lora":
        raise WeightsError(
            f"the layout {layout} is of concepts of bases with a UNet",
            why=f"this one holds {delta.names[0]}",
            fix="--to lora; or export it with --for diffusers, or --for peft",
        )
    if not isinstance(base, BaseWeights):
        raise UsageError("the layout lora stores differences", fix="pass the base model's weights")
    kind = transformer_class(base.base)
    if kind in WITHOUT_LORA:
        raise WeightsError(
            f"the pipeline of {kind} in diffusers cannot load a LoRA",
            fix="export it with --for peft, or with --for diffusers, which writes whole matrices",
        )
    return {LORA: diffusers_lora_bytes(_changes(delta, base))} | words_file(delta)


def words_file(delta: ConceptDelta) -> Files:
    """{"text_encoder": (n, d), "text_encoder_2": ...} of the n new words; no file where there are none."""
    columns = zip(*delta.tokens.values(), strict=True)
    rows = {
        name: torch.stack(list(column)).float()
        for name, column in zip(("text_encoder", "text_encoder_2"), columns, strict=False)
    }
    return {WORDS: tensor_bytes(rows, {"format": "pt"})} if rows else {}


def _changes(delta: ConceptDelta, base: BaseWeights) -> dict[str, Change]:
    full = delta.expanded(base).weights
    return {
        name.removesuffix(".weight"): Change(*exact_factors(weight.double() - base[name].double()))
        for name, weight in full.items()
    }


def _word_lines(delta: ConceptDelta) -> list[str]:
    if not delta.tokens:
        return []
    words, lines = list(delta.tokens), [f'rows = safetensors.torch.load_file(FOLDER + "/{WORDS}")']
    for suffix in ("", "_2")[: len(next(iter(delta.tokens.values())))]:
        encoder, tokenizer = f"pipeline.text_encoder{suffix}", f"pipeline.tokenizer{suffix}"
        lines += [
            f"{tokenizer}.add_tokens({words})",
            f"size = max(len({tokenizer}), {encoder}.get_input_embeddings().num_embeddings)",
            f"{encoder}.resize_token_embeddings(size, mean_resizing=False)",
            f"table = {encoder}.get_input_embeddings().weight.data",
            f'table[{tokenizer}.convert_tokens_to_ids({words})] = rows["text_encoder{suffix}"].to(table)',
        ]
    return lines


def _typed(delta: ConceptDelta) -> str:
    phrase = (delta.phrases or tuple(delta.tokens) or ("",))[0]
    how = ", with clean_caption=False where the pipeline's call has it: cleaning drops words in <...>"
    return f"type: photo of a {phrase}{how if delta.tokens else ''}"
