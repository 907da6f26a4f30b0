"""Which weights ship with genzoo, by names such as "assets:dim_emoji", and what each says of itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from genzoo.assets import asset
from genzoo.core.errors import WeightsError, did_you_mean
from genzoo.core.reading import read_json

SCHEME = "assets:"
CARD = "card.json"


@dataclass(frozen=True)
class Card:
    """Shipped weights in a line.   recipe: made them.   measured: how good they are, by its README."""

    name: str
    about: str
    recipe: str
    measured: str
    bytes: int

    def __str__(self) -> str:
        return f"{self.about}; {self.bytes / 1e6:.1f} MB; recipe {self.recipe}; {self.measured}"


def is_shipped(place: str | Path) -> bool:
    """Whether a place is a name of shipped weights."""
    return str(place).startswith(SCHEME)


def shipped_names() -> list[str]:
    """What may stand behind "assets:"."""
    return sorted(path.name for path in asset("weights").iterdir() if (path / CARD).is_file())


def shipped_at(place: str | Path) -> str | None:
    """ "assets:NAME" of the folder in which weights ship; None for other places."""
    path = Path(place).expanduser()
    if not (path / CARD).is_file():
        return None
    same = (name for name in shipped_names() if asset(f"weights/{name}").samefile(path))
    return next((f"{SCHEME}{name}" for name in same), None)


def shipped_folder(place: str | Path) -> Path:
    """The folder in which weights ship.   place: "assets:NAME". Raises WeightsError naming what there is."""
    name = str(place).removeprefix(SCHEME)
    known = shipped_names()
    if name not in known:
        hint = did_you_mean(name, known)
        raise WeightsError(
            f"no weights {name!r} ship with genzoo",
            fix=f"{hint + ' ' if hint else ''}there are {', '.join(known)}",
        )
    return asset(f"weights/{name}")


def card(name: str) -> Card:
    """What shipped weights say of themselves. Raises WeightsError for an unknown name."""
    folder = shipped_folder(name)
    told = read_json(folder / CARD, "the card of shipped weights")
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return Card(name, told["about"], told["recipe"], told["measured"], size)
