"""Named protocols, read from protocols.yaml: what two numbers must share to be compared."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from genzoo.core.errors import UsageError, did_you_mean

OF_IMAGES = (
    *("fid", "sfid", "fdd", "frechet", "inception_score", "kid", "kid_all", "cmmd", "mind"),
    *("precision_recall", "prdc", "vendi"),
)
METRICS = {
    "images": OF_IMAGES,
    "clips": ("fvd", "frechet", "kid", "kid_all", "mind", "jedi", "precision_recall", "prdc", "vendi"),
    "concepts": ("clip_text", "clip_image", "dino_image"),
    "controls": (*OF_IMAGES, "control_adherence"),
}


@dataclass(frozen=True)
class Protocol:
    """One named way to judge; the fields are those of protocols.yaml, explained there."""

    name: str
    about: str
    source: str
    kind: str
    network: str
    num: int
    metrics: Mapping[str, Mapping[str, Any]]
    reference: Mapping[str, Any] = field(default_factory=dict)
    clips: Mapping[str, Any] = field(default_factory=dict)
    second_network: str | None = None
    weights_sha256: str = ""
    choices: tuple[str, ...] = ()
    papers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in METRICS:
            raise UsageError(f"protocol {self.name}: kind {self.kind!r} is none of {', '.join(METRICS)}")
        unknown = set(self.metrics) - set(METRICS[self.kind])
        if unknown or not self.metrics:
            raise UsageError(
                f"protocol {self.name}: no metric of {self.kind}: {', '.join(sorted(unknown)) or '-'}"
            )

    def fingerprint(self) -> str:
        """Of everything that decides the number; prose and paper tables are left out."""
        deciding = {
            key: value
            for key, value in dataclasses.asdict(self).items()
            if key not in ("about", "source", "choices", "papers")
        }
        return hashlib.sha256(json.dumps(deciding, sort_keys=True).encode()).hexdigest()[:16]

    def changed(self, **changes: Any) -> Protocol:
        """The same protocol with fields replaced; None leaves a field alone."""
        return dataclasses.replace(
            self, **{key: value for key, value in changes.items() if value is not None}
        )


@functools.lru_cache(maxsize=8)
def _read(path: Path) -> dict[str, dict[str, Any]]:
    from omegaconf import OmegaConf

    content: dict[str, dict[str, Any]] = OmegaConf.to_container(OmegaConf.load(path))  # type: ignore[assignment]
    return content


def outline() -> dict[str, str]:
    """Every protocol that comes with the library, and what it is about.

    Read by lines: listings wait for it, and the parser alone takes longer than all the rest of them.
    """
    found, name = {}, ""
    for line in Path(__file__).with_name("protocols.yaml").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith((" ", "#")):
            name = line.rstrip(":")
        elif line.startswith("  about: "):
            found[name] = line.removeprefix("  about: ")
    return found


def load_protocol(name: str | Protocol, *, kinds: tuple[str, ...] = (), judge: str = "") -> Protocol:
    """A protocol by name, or FILE.yaml:NAME from a file of the same form as protocols.yaml.

    kinds: of protocols that `judge` (a name for messages) can follow; all when left out.
    """
    found = name if isinstance(name, Protocol) else _named(name)
    if kinds and found.kind not in kinds:
        raise UsageError(f"{found.name} judges {found.kind}; {judge}() judges {kinds[0]}")
    return found


def _named(name: str) -> Protocol:
    file, found, own = name.rpartition(".yaml:")
    name = own if found else name
    path = Path(f"{file}.yaml") if found else Path(__file__).with_name("protocols.yaml")
    if not path.is_file():
        raise UsageError(f"there is no file of protocols {path}")
    table = _read(path)
    if name not in table:
        hint = did_you_mean(name, table) or f"known: {', '.join(table)}"
        raise UsageError(f"there is no protocol {name!r}; {hint}")
    fields = dict(table[name])
    unknown = set(fields) - {entry.name for entry in dataclasses.fields(Protocol)}
    if unknown:
        raise UsageError(f"protocol {name}: unknown keys {', '.join(sorted(unknown))}")
    for key in ("choices", "papers"):
        fields[key] = tuple(fields.get(key) or ())
    return Protocol(name=name, **fields)


def paper_rows(group: str) -> tuple[list[str], list[dict[str, Any]]]:
    """Metric names and rows of one group of papers.yaml, defaults filled in."""
    table = _read(Path(__file__).with_name("papers.yaml"))[group]
    return list(table["metrics"]), [{**table["default"], **row} for row in table["rows"]]
