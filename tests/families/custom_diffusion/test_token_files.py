"""Files that are named after tokens never take the place of each other, or of the weights."""

from __future__ import annotations

import pytest

from genzoo.core.errors import UsageError
from genzoo.families.custom_diffusion.files.write_layouts import _with_tokens


@pytest.mark.parametrize(
    ("weights", "tokens", "without", "why"),
    [
        ("lora.safetensors", ["<new1>", "new1"], "<>", "new1.safetensors is the file of '<new1>'"),
        ("lora.safetensors", ["<lora>"], "<>", "lora.safetensors is the file of the weights"),
        ("lora.safetensors", ["<LoRA>"], "<>", "LoRA.safetensors is the file of the weights"),
        ("lora.safetensors", ["<>"], "<>", "'.safetensors' is no file's name"),
        ("pytorch_lora_weights.safetensors", ["pytorch_lora_weights"], "", "is the file of the weights"),
        ("lora.safetensors", ["../../up"], "", "is no file's name"),
        ("lora.safetensors", ["-rf"], "", "is no file's name"),
    ],
)
def test_a_token_whose_file_is_taken_is_refused(
    weights: str, tokens: list[str], without: str, why: str
) -> None:
    with pytest.raises(UsageError, match="cannot be a file of this layout") as caught:
        _with_tokens({weights: b"w"}, dict.fromkeys(tokens, b"t"), ".safetensors", without)
    assert why in str(caught.value.why)


def test_tokens_of_different_names_have_a_file_each() -> None:
    files = _with_tokens({"lora.safetensors": b"w"}, {"<new1>": b"1", "<new2>": b"2"}, ".safetensors", "<>")
    assert files == {"lora.safetensors": b"w", "new1.safetensors": b"1", "new2.safetensors": b"2"}
