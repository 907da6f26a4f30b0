"""Random bases with a transformer in diffusers' layout, each class with its kind of text encoder."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from families.custom_diffusion.tiny_bases import autoencoder
from families.custom_diffusion.tiny_bases import text_encoder as clip_encoder
from golden.manifest import golden_cases

from genzoo.families.custom_diffusion.files.base_weights import BaseWeights, fingerprint
from genzoo.families.custom_diffusion.files.concept import ConceptDelta
from genzoo.pretrained.clip_vocabulary import clip_tokenizer
from genzoo.pretrained.pipeline_text import PipelineText

# pipeline, text encoder, its width, and the golden case with the transformer's shape
BASES: dict[str, tuple[str, str, int, str]] = {
    "allegro": ("AllegroPipeline", "t5", 10, "allegro"),
    "hunyuan": ("HunyuanDiTPipeline", "bert", 12, "hunyuan"),
    "latte": ("LattePipeline", "t5", 12, "latte"),
    "ltx": ("LTXPipeline", "t5", 10, "ltx"),
    "lumina": ("LuminaPipeline", "gemma", 12, "lumina_next"),
    "pixart": ("PixArtAlphaPipeline", "t5", 12, "pixart"),
    "sana": ("SanaPipeline", "gemma2", 10, "sana"),
    "wan": ("WanPipeline", "umt5", 10, "wan"),
}
# whose padding is learnt, as many rows as its two encoders read
CHANGES = {"hunyuan": {"text_len": 77, "text_len_t5": 256}}
NUM_BYTES = 256


class Bases(dict[str, Path]):
    """Bases by name, built when they are first asked for."""

    def __init__(self, root: Path, build: Callable[[Path, str], Path]) -> None:
        super().__init__()
        self.root, self.build = root, build

    def __missing__(self, name: str) -> Path:
        self[name] = self.build(self.root / name, name)
        return self[name]


def byte_tokenizer(first: str | None, last: str | None) -> Any:
    """One token a byte, between special ones."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = {"<pad>": 0, "<end>": 1, "<start>": 2, **{one: k for k, one in enumerate(alphabet, 3)}}
    raw = Tokenizer(models.BPE(vocab=words, merges=[]))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    parts = [first, "$A", last]
    raw.post_processor = processors.TemplateProcessing(
        single=" ".join(part for part in parts if part),
        special_tokens=[(one, words[one]) for one in (first, last) if one],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="<pad>", eos_token="<end>", bos_token="<start>", model_max_length=400
    )


def text_encoder(kind: str, width: int) -> tuple[Any, Any]:
    """A tokenizer and a random encoder whose rows depend on the words."""
    import transformers as tr

    torch.manual_seed(len(kind))
    size = NUM_BYTES + 3
    if kind in ("t5", "umt5"):
        t5 = {"vocab_size": size, "d_model": width, "d_kv": 4, "d_ff": 16, "num_layers": 2, "num_heads": 2}
        made = {"t5": (tr.T5Config, tr.T5EncoderModel), "umt5": (tr.UMT5Config, tr.UMT5EncoderModel)}[kind]
        model, tokenizer = made[1](made[0](**t5)), byte_tokenizer(None, "<end>")
    elif kind == "bert":
        config = tr.BertConfig(
            vocab_size=size,
            hidden_size=width,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=16,
        )
        model, tokenizer = tr.BertModel(config), byte_tokenizer("<start>", "<end>")
    else:
        made = {"gemma": (tr.GemmaConfig, tr.GemmaModel), "gemma2": (tr.Gemma2Config, tr.Gemma2Model)}[kind]
        config = made[0](
            vocab_size=size,
            hidden_size=width,
            intermediate_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=4,
        )
        model, tokenizer = made[1](config), byte_tokenizer("<start>", None)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(4)
    return tokenizer, model.eval()


def transformer(name: str) -> Any:
    """A random model of the golden case's shape."""
    import diffusers

    cases = golden_cases("concept_editing", "cross_attention_models")
    case = next(case for case in cases if case["name"] == BASES[name][3])
    config = {key: tuple(v) if isinstance(v, list) else v for key, v in case["config"].items()}
    torch.manual_seed(7)
    model = getattr(diffusers, case["cls"])(**{**config, **CHANGES.get(name, {})})
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def build_transformer_base(folder: Path, name: str) -> Path:
    """model_index.json, transformer, tokenizers and text encoders; nothing that samples."""
    pipeline, kind, width, _ = BASES[name]
    index: dict[str, Any] = {"_class_name": pipeline, "_diffusers_version": "0.42.1"}
    encoders: dict[str, Callable[[], tuple[Any, Any]]] = {"": lambda: text_encoder(kind, width)}
    if name == "hunyuan":
        encoders["_2"] = lambda: text_encoder("t5", 8)
    for suffix, build in encoders.items():
        tokenizer, model = build()
        tokenizer.save_pretrained(folder / f"tokenizer{suffix}")
        model.save_pretrained(folder / f"text_encoder{suffix}")
        index[f"tokenizer{suffix}"] = ["transformers", "PreTrainedTokenizerFast"]
        index[f"text_encoder{suffix}"] = ["transformers", type(model).__name__]
    painter = transformer(name)
    painter.save_pretrained(folder / "transformer")
    index["transformer"] = ["diffusers", type(painter).__name__]
    index |= {"vae": ["diffusers", "AutoencoderKL"], "scheduler": ["diffusers", "DDIMScheduler"]}
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def complete_base(folder: Path, name: str) -> Path:
    """A base that its pipeline samples: with an autoencoder of two pixels a latent, and a scheduler."""
    from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler

    straight = name in ("flux", "ltx", "lumina", "sana", "wan")
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0) if straight else DDIMScheduler()
    if name == "flux":
        _build_flux(folder)
    else:
        build_transformer_base(folder, name)
    codec = autoencoder_of(name)
    codec.save_pretrained(folder / "vae")
    scheduler.save_pretrained(folder / "scheduler")
    index = json.loads((folder / "model_index.json").read_text())
    index["scheduler"] = ["diffusers", type(scheduler).__name__]
    index["vae"] = ["diffusers", type(codec).__name__]
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def make_transformer_concept(base: Path, seed: int, token: str, phrase: str) -> ConceptDelta:
    """As training writes it: random changes of half the size of the weights, a random row an encoder."""
    weights, generator = BaseWeights(base), torch.Generator().manual_seed(seed)
    taught = {}
    for name in weights.key_values:
        W_0 = weights[name]
        taught[name] = W_0 + 0.5 * W_0.std() * torch.randn(W_0.shape, generator=generator)
    rows = [torch.randn(width, generator=generator) for width in PipelineText(base).widths]
    return ConceptDelta(
        weights=taught,
        tokens={token: rows},
        phrases=(phrase,),
        base_model=base.name,
        base_fingerprint=fingerprint(weights),
        notes={"base_path": str(base)},
    )


def autoencoder_of(name: str) -> Any:
    """A random one of the class that a pipeline expects, with statistics that are not 0 and 1."""
    import diffusers

    torch.manual_seed(4)
    if name == "sana":
        sides: dict[str, Any] = {}
        for side in ("encoder", "decoder"):
            sides |= {f"{side}_block_types": "ResBlock", f"{side}_block_out_channels": (8, 8)}
            sides |= {f"{side}_qkv_multiscales": ((), ()), f"{side}_layers_per_block": (1, 1)}
        return diffusers.AutoencoderDC(
            latent_channels=4, downsample_block_type="conv", upsample_block_type="interpolate", **sides
        )
    if name == "wan":
        return diffusers.AutoencoderKLWan(
            base_dim=3,
            z_dim=4,
            dim_mult=[1, 1, 1, 1],
            num_res_blocks=1,
            latents_mean=[0.1, -0.2, 0.3, 0.0],
            latents_std=[0.5, 1.5, 2.0, 1.0],
        )
    if name == "ltx":
        return diffusers.AutoencoderKLLTXVideo(
            latent_channels=4,
            block_out_channels=(8, 8, 8, 8),
            decoder_block_out_channels=(8, 8, 8, 8),
            layers_per_block=(1, 1, 1, 1, 1),
            decoder_layers_per_block=(1, 1, 1, 1, 1),
            spatio_temporal_scaling=(True, True, False, False),
            decoder_spatio_temporal_scaling=(True, True, False, False),
            decoder_inject_noise=(False,) * 5,
            upsample_residual=(False,) * 4,
            upsample_factor=(1,) * 4,
            patch_size=1,
            patch_size_t=1,
        )
    # Lumina's pipeline takes eight pixels a latent for granted
    return autoencoder(4 if name == "lumina" else 2)


def _build_flux(folder: Path) -> None:
    from diffusers import FluxTransformer2DModel

    torch.manual_seed(7)
    FluxTransformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=12,
        num_attention_heads=2,
        joint_attention_dim=20,
        pooled_projection_dim=16,
        axes_dims_rope=(4, 4, 4),
    ).save_pretrained(folder / "transformer")
    clip_tokenizer().save_pretrained(folder / "tokenizer")
    clip_encoder(16, projected=False, seed=1).save_pretrained(folder / "text_encoder")
    tokenizer, model = text_encoder("t5", 20)
    tokenizer.save_pretrained(folder / "tokenizer_2")
    model.save_pretrained(folder / "text_encoder_2")
    index = {
        "_class_name": "FluxPipeline",
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer_2": ["transformers", "PreTrainedTokenizerFast"],
        "text_encoder_2": ["transformers", "T5EncoderModel"],
        "transformer": ["diffusers", "FluxTransformer2DModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    (folder / "model_index.json").write_text(json.dumps(index))
