"""What edits did, for people and for programs."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from genzoo.families.custom_diffusion.files.report import Report

# beyond this share of what it lacks, an edit lost against what was kept
OUTVOTED = 0.5
# pictures of others that move by this share of the edit's own are disturbed; from 1 on, as much as the edit.
# On the base that ships they did where kept captions' rows moved by 0.3 (0.32: 1.1; 0.21 and 0.15: 0.3 to
# 0.6)
NOTICEABLE, AS_MUCH, ROWS_AS_MUCH = 0.4, 1.0, 0.3


@dataclass(frozen=True)
class EditReport:
    """residual: |W c - v| over |W_0 c - v|, of its rows.   moved: root mean square of |(W - W_0) c| over its
    rows, and drift of kept captions and the worst of them by that measure, as a share of it.   to_target,
    others_moved: of pictures, where some were drawn, see `pictures.with_pictures`.
    """

    label: str
    num_rows: int
    residual: float
    moved: float
    drift: float
    worst_drift: float
    worst_caption: str
    verdict: str = ""
    to_target: float | None = None
    others_moved: dict[str, float] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True)
class EditsReport(Report):
    """interference[i][j]: how far edit j, made alone, moves the rows of edit i, as a share of what i
    needs.
    """

    base: str
    base_fingerprint: str
    form: str
    rows: str
    lamb: float
    edits: list[EditReport]
    interference: list[list[float]]
    notes: list[str]
    largest_change: float
    num_matrices: int
    num_kept_rows: int
    num_captions: int
    width: int
    rounds: list[dict[str, Any]] = dataclasses.field(default_factory=list)

    def lines(self) -> list[str]:
        """For a terminal."""
        text = [
            f"{len(self.edits)} edits of {self.num_matrices} matrices of {self.base} (form {self.form}, "
            f"rows {self.rows}, lamb {self.lamb:g})",
            f"{self.num_kept_rows} rows of {self.num_captions} captions kept, {self.width} wide; largest "
            f"change "
            f"{self.largest_change:.1%} of a matrix",
        ]
        for edit in self.edits:
            text.append(f"{edit.label}: {edit.verdict}")
            text.append(
                f"  residual {edit.residual:.2f}, kept captions move {edit.drift:.2f} of what it moves, "
                f"at most "
                f"{edit.worst_drift:.2f} ({edit.worst_caption!r})"
            )
            if edit.others_moved:
                near = "" if edit.to_target is None else f"{edit.to_target:.2f} from the target's; "
                moved = ", ".join(f"{name} {share:.2f}" for name, share in edit.others_moved.items())
                text.append(f"  pictures, as a share of their own movement: {near}others moved: {moved}")
        if len(self.edits) > 1:
            text.append("interference (row: whose text, column: which edit moves it)")
            for edit, row in zip(self.edits, self.interference, strict=True):
                text.append("  " + "  ".join(f"{value:5.2f}" for value in row) + f"  {edit.label}")
        for one in self.rounds:
            found = ", ".join(f"{name} {share:.2f}" for name, share in one["found"].items())
            text.append(f"round {one['round']}: {one['edit']}: {found}")
        return text + [f"note: {note}" for note in self.notes]


def verdict(edit: EditReport, others: list[tuple[str, float]]) -> str:
    """One plain sentence. others: (label, interference) of the other edits."""
    if edit.residual > OUTVOTED:
        return (
            f"the edit was outvoted: {edit.residual:.0%} of the change is missing; a larger share or weight, "
            "fewer captions to keep"
        )
    if edit.others_moved:
        name = max(edit.others_moved, key=lambda text: edit.others_moved[text])
        if edit.others_moved[name] >= AS_MUCH:
            return f"made, but it disturbs others as much as itself: pictures of {name!r} move as far"
        if edit.others_moved[name] > NOTICEABLE:
            return f"made; pictures of {name!r} move along"
    elif edit.drift > ROWS_AS_MUCH:
        return "made, but it may disturb others as much as itself: draw pictures to see"
    worst = max(others, key=lambda pair: pair[1], default=("", 0.0))
    if worst[1] > OUTVOTED:
        return f"made, but {worst[0]} pulls at the same rows ({worst[1]:.2f})"
    return "made, and others stay"
