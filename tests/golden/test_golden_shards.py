"""Tar shards with awkward members: every sample is found where it is, and what is none is refused by name."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
from golden.many_processes_sets import FOLDER, index

from genzoo.core.errors import DataError
from genzoo.data.tar_samples import caption_of, read_shard


def described(path: Path) -> dict[str, Any]:
    content, data = read_shard(path), path.read_bytes()
    samples = []
    for sample in content.samples:
        place = sample.picture
        picture = data[place.offset : place.offset + place.size]
        entry: dict[str, Any] = {
            "key": sample.key,
            "picture": {
                "extension": sample.extension,
                "offset": place.offset,
                "sha256": hashlib.sha256(picture).hexdigest(),
                "size": place.size,
            },
        }
        if sample.label is not None:
            entry["class"] = sample.label
        if sample.caption is not None:
            text = data[sample.caption.offset : sample.caption.offset + sample.caption.size]
            entry["caption"] = caption_of(text, where="here")
        samples.append(entry)
    return {"ignored": content.ignored, "samples": samples}


@pytest.mark.parametrize("name", list(index("shards")))
def test_every_sample_of_a_shard_is_found_in_its_place(name: str) -> None:
    assert described(FOLDER / "shards" / name) == index("shards")[name]


@pytest.mark.parametrize("name", list(index("refused")))
def test_what_is_no_plain_shard_is_refused_by_its_word_and_name(name: str) -> None:
    with pytest.raises(DataError) as caught:
        read_shard(FOLDER / "refused" / name)
    text = str(caught.value).lower()
    assert index("refused")[name]["says"] in text
    assert name in text
    assert caught.value.exit_code == 4
