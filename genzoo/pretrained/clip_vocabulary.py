"""CLIP's tokenizer from the list of merges that open_clip ships: nothing to download."""

from __future__ import annotations

import gzip
import importlib.util
from pathlib import Path
from typing import Any

from genzoo.core.errors import MissingDependencyError

FILE = "bpe_simple_vocab_16e6.txt.gz"
VOCABULARY_SIZE = 49408
MAX_LENGTH = 77
BEGIN, END = "<|startoftext|>", "<|endoftext|>"


def clip_tokenizer() -> Any:
    """A transformers CLIPTokenizer with the vocabulary of Stable Diffusion 1.x, 77 tokens at most."""
    from transformers import CLIPTokenizer

    merges = _merges()
    vocabulary = {word: index for index, word in enumerate(_words(merges))}
    assert len(vocabulary) == VOCABULARY_SIZE
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=MAX_LENGTH)


def _words(merges: list[tuple[str, str]]) -> list[str]:
    """All tokens in the order of their ids: bytes, bytes that end a word, merged pieces, the two marks."""
    # bytes that print stand for themselves, the others for characters from 256 on, as in GPT-2
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    symbols = [chr(code) for code in printable] + [chr(256 + k) for k in range(256 - len(printable))]
    return [*symbols, *(f"{symbol}</w>" for symbol in symbols), *map("".join, merges), BEGIN, END]


def _merges() -> list[tuple[str, str]]:
    """Pairs of pieces, the earliest merged first. The file's first line is a header, its tail unused."""
    spec = importlib.util.find_spec("open_clip")
    if spec is None or not spec.submodule_search_locations:
        raise MissingDependencyError(
            "CLIP's vocabulary comes with open_clip", fix="pip install open_clip_torch"
        )
    path = Path(next(iter(spec.submodule_search_locations))) / FILE
    lines = gzip.decompress(path.read_bytes()).decode("utf-8").split("\n")
    count = VOCABULARY_SIZE - 2 * 256 - 2
    return [(first, second) for first, _, second in (line.partition(" ") for line in lines[1 : count + 1])]
