"""What a merge did, for people and for programs."""

from __future__ import annotations

from dataclasses import dataclass

from genzoo.core.wording import counted
from genzoo.families.custom_diffusion.files.report import Report

# the share of a concept's own change that another one, merged alone, would cause at its words
STRONG, NOTICEABLE = 0.5, 0.1
LOST = 1e-3


@dataclass(frozen=True)
class ConceptReport:
    """constraint_residual: max |W c - v| over the concept's rows.   lost_share: of the change that its words
    need, how much the merged weights miss (relative Frobenius norm over all projections).
    """

    source: str
    sha256: str | None
    tokens: list[str]
    phrases: list[str]
    layout_notes: list[str]
    num_rows: int
    own_change: float
    constraint_residual: float
    lost_share: float
    verdict: str = ""


@dataclass(frozen=True)
class MergeReport(Report):
    """interference[i][j]: how far concept j, merged alone, moves concept i's words, as a share of the change
    that concept i needs; 1 on the diagonal.   objective: ||(W - W_0) C_reg^T||_F over all projections.
    """

    base: str
    base_fingerprint: str
    concepts: list[ConceptReport]
    interference: list[list[float]]
    clashes: list[str]
    renamed: dict[str, str]
    constraint_residual: float
    objective: float
    largest_change: float
    condition: float
    rank: int
    width: int
    row_condition: float
    num_target_rows: int
    num_regularisation_rows: int
    num_captions: int
    num_matrices: int
    method: str
    form: str = "constraint"
    share: float | None = None

    def _loses(self) -> bool:
        return any(concept.lost_share > LOST for concept in self.concepts)

    def lines(self) -> list[str]:
        """For a terminal."""
        text = [
            f"{counted(len(self.concepts), 'concept')} merged into"
            f" {counted(self.num_matrices, 'matrix', 'matrices')} of {self.base}",
            f"constraint residual {self.constraint_residual:.1e}, objective {self.objective:.4g}, "
            f"largest change {self.largest_change:.1%} of a matrix",
            f"{self.num_regularisation_rows} regularisation rows of {self.num_captions} captions: rank "
            f"{self.rank} of {self.width}, condition {self.condition:.3g}; "
            f"{self.num_target_rows} target rows, condition {self.row_condition:.3g}",
        ]
        if self.form == "ridge":
            text.append(f"ridge: near the targets, whose weight is {self.share:g} of all that is kept")
        # the text encoder's last norm alone takes away a direction or two
        if self.rank < self.width - 2:
            text.append("  the captions do not span the text features: more captions make the merge safer")
        if self.largest_change > 1 and self.form == "constraint":
            text.append("  a matrix changed by more than its own size: other prompts will suffer")
        if self.form == "constraint" and (self.largest_change > 1 or self._loses()):
            text.append("  form ridge (--form ridge) weighs the concepts against what is kept")
        text += [f"clash: {clash}" for clash in self.clashes]
        text += [f"renamed: {old} -> {new}" for old, new in self.renamed.items()]
        text.append("interference (row: whose words, column: which concept moves them)")
        for concept, row in zip(self.concepts, self.interference, strict=True):
            text.append("  " + "  ".join(f"{value:5.2f}" for value in row) + f"  {label_of(concept)}")
        for concept in self.concepts:
            text.append(f"{label_of(concept)}: {concept.verdict}")
            text += [f"  note: {note}" for note in concept.layout_notes]
        return text


def label_of(concept: ConceptReport) -> str:
    """What a concept is called in prompts, or its file."""
    return " | ".join(concept.phrases) or concept.source


def verdict(concept: ConceptReport, others: list[tuple[str, float]], clashing: list[str]) -> str:
    """One plain sentence. others: (label, interference) of every other concept."""
    if concept.lost_share > LOST:
        shared = f" with {', '.join(clashing)}" if clashing else ""
        return (
            f"NOT fully kept: {concept.lost_share:.0%} of its change is lost to words shared{shared}; "
            "give it another phrase, or train the concepts jointly"
        )
    worst = max(others, key=lambda pair: pair[1], default=("", 0.0))
    if worst[1] > STRONG:
        return (
            f"kept at its own words, but {worst[0]} pulls strongly at the same features ({worst[1]:.2f}): "
            "expect the two to mix in one picture; joint training is the alternative"
        )
    if worst[1] > NOTICEABLE:
        return f"kept; {worst[0]} touches its features a little ({worst[1]:.2f})"
    return "kept, and undisturbed by the others"


def near_verdict(concept: ConceptReport, others: list[tuple[str, float]]) -> str:
    """One plain sentence about a concept that was weighed against what is kept."""
    if concept.lost_share > STRONG:
        return (
            f"outvoted: {concept.lost_share:.0%} of its change is lost to what is kept and to the others; "
            "a larger share, or fewer captions to keep"
        )
    worst = max(others, key=lambda pair: pair[1], default=("", 0.0))
    told = f"kept but for {concept.lost_share:.0%} of its change"
    return told if worst[1] <= STRONG else f"{told}; {worst[0]} pulls at the same features ({worst[1]:.2f})"
