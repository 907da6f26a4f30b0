"""What a merge asks of a base's text encoders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from torch import Tensor

from genzoo.families.custom_diffusion.edit.place import Group
from genzoo.families.custom_diffusion.files.concept import ConceptDelta


class ConceptTexts(Protocol):
    """Rows of texts with concepts' words in them, of either kind of base."""

    @property
    def widths(self) -> list[int]:
        """Of each encoder's token embeddings."""

    def groups(self, names: Sequence[str]) -> list[Group]:
        """Projections by the rows that they see."""

    def add_tokens(self, tokens: Mapping[str, Sequence[Tensor]]) -> None:
        """New words with one embedding row for each encoder."""

    def is_word(self, token: str) -> bool:
        """Whether a token is read as one."""

    def targets(self, delta: ConceptDelta, form: str) -> Tensor:
        """(s_n, d) rows that stand for a concept, each distinct one once."""

    def kept(
        self, captions: Sequence[str], *, include_bos: bool, include_padding: bool, form: str
    ) -> tuple[Tensor, Tensor | None]:
        """Rows (s_reg, d) that stay, each distinct one once, and how often each counts, (s_reg,); None where
        they are scaled by the roots of that already.
        """
