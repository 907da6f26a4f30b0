"""Files by local path or by hub id. Without a network, one attempt, and an error that names every way on."""

from __future__ import annotations

import contextlib
import textwrap
import time
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from genzoo.assets.shipped import shipped_at
from genzoo.core.errors import UsageError, WeightsError
from genzoo.core.progress import doing
from genzoo.core.shapes_alone import shapes_do
from genzoo.pretrained.quiet import without_hub_bars
from genzoo.pretrained.shipped import is_shipped, shipped

ANSWERS_WITHIN = 10.0  # seconds that the hub has for one answer
REMEMBERED = 300.0  # seconds before it is asked again whether it is there
WHOLE = ("*.json", "*.txt", "*.safetensors")  # of a folder in diffusers' layout
WEIGHTS = (".safetensors", ".bin")
WEIGHTS_FILE = "diffusion_pytorch_model.safetensors"  # of a UNet, an autoencoder
SMALL = "take the small base that ships: assets:text_to_image_emoji"
_asked: dict[str, tuple[float, bool]] = {}  # endpoint -> when, and whether it answered


def located(path_or_id: str | Path) -> str:
    """A folder's path or a hub id as other libraries take them; "assets:NAME", or the folder in which those
    weights ship, is one of genzoo's own, unpacked.
    """
    name = path_or_id if is_shipped(path_or_id) else shipped_at(path_or_id)
    return str(path_or_id if name is None else shipped(name))


def resolve(
    path_or_id: str | Path,
    filename: str,
    *,
    subfolder: str | None = None,
    revision: str | None = None,
    together: Sequence[str] = (),
    instead: str = "",
) -> Path:
    """A local path of one file of a model folder, downloaded to the hub's cache if need be.

    path_or_id: a folder, a hub id such as "stabilityai/sd-vae-ft-ema", or "assets:NAME" for weights that ship
    with genzoo.   filename, subfolder: relative names.   together, instead: for the error: what else of it is
    needed, and what would do in its place. Raises WeightsError naming the file.
    """
    inside = _relative(filename, subfolder)
    path_or_id = located(path_or_id)
    folder = Path(path_or_id).expanduser()
    if folder.is_dir():
        if not (folder / inside).is_file():
            raise WeightsError(
                f"the folder has no {inside}", where=str(folder), fix=f"put the file at {folder / inside}"
            )
        return folder / inside
    if not is_hub_id(path_or_id):
        raise WeightsError(
            f"there is no folder {str(path_or_id)!r}",
            fix="pass a folder that exists, or a hub id such as owner/name",
        )
    try:
        return _download(str(path_or_id), inside, revision)
    except WeightsError as error:
        error.fix = "; or ".join(_ways(str(path_or_id), [*together] or [str(inside)], instead))
        raise WeightsError(error.what, where=error.where, why=error.why, fix=error.fix) from error


def fetched(
    path_or_id: str | Path,
    filenames: Sequence[str],
    *,
    optional: Sequence[str] = (),
    subfolder: str | None = None,
    together: Sequence[str] = (),
    instead: str = "",
) -> str:
    """A local folder that holds these files (below `subfolder`), for libraries that load whole folders.

    optional: files that are fetched where there are such. The rest as in `resolve`. Raises WeightsError.
    """
    root = located(path_or_id)
    if Path(root).expanduser().is_dir():
        for name in filenames:
            if name.endswith("config.json"):  # weights and words may have other names in a folder
                resolve(root, name, subfolder=subfolder)
        return root
    advice: dict[str, Any] = {"together": together, "instead": instead}
    found = [resolve(root, name, subfolder=subfolder, **advice) for name in filenames]
    for name in optional:
        with contextlib.suppress(WeightsError):
            resolve(root, name, subfolder=subfolder)
    return str(found[0].parents[len(_relative(filenames[0], subfolder).parts) - 1])


def weights_lack(path_or_id: str | Path, filename: str, *, subfolder: str) -> bool:
    """Whether shapes will do, and a model's weights are not on this machine: no such file in the folder, or
    this one not in the hub's cache.
    """
    from huggingface_hub import try_to_load_from_cache

    if not shapes_do():
        return False
    root = located(path_or_id)
    folder = Path(root).expanduser()
    if folder.is_dir():
        own = folder / subfolder
        return own.is_dir() and not any(path.suffix in WEIGHTS for path in own.iterdir())
    return is_hub_id(root) and not isinstance(try_to_load_from_cache(root, f"{subfolder}/{filename}"), str)


def is_hub_id(path_or_id: str | Path) -> bool:
    """Whether a string can be a hub id ("owner/name", or a bare name) and not only a path."""
    text = str(path_or_id)
    parts = text.split("/")
    return 1 <= len(parts) <= 2 and all(part.strip(".~") for part in parts) and "\\" not in text


def _relative(filename: str, subfolder: str | None) -> PurePosixPath:
    inside = PurePosixPath(subfolder or "", filename)
    if inside.is_absolute() or ".." in inside.parts:
        raise UsageError(
            f"{str(inside)!r} leaves the model's folder", fix="use a name inside it, such as 'vae'"
        )
    return inside


def fetch(repo_id: str, patterns: Sequence[str], *, revision: str | None = None) -> Path:
    """A local folder with those files of a repository whose names match, in the hub's cache.

    Raises WeightsError when the repository is not to be had from here.
    """
    from huggingface_hub import snapshot_download

    from genzoo.pretrained.fetching import Fetching

    options: dict[str, Any] = {"revision": revision, "allow_patterns": list(patterns), "tqdm_class": Fetching}

    def get(**only: Any) -> str:
        return snapshot_download(repo_id, **options, **only)

    what = f"{repo_id}{f' at {revision}' if revision else ''}"
    with doing(f"fetching {what}"):
        return Path(_asked_for(get, what, f"{_page(repo_id)}/tree/{revision or 'main'}"))


def sent(repo_id: str, folder: Path, *, message: str, private: bool) -> str:
    """Make a repository if need be, and put a folder's files into it as one commit; its address.

    Raises WeightsError, UsageError without a token.
    """
    from huggingface_hub import HfApi, get_token
    from huggingface_hub.constants import ENDPOINT

    if get_token() is None:
        raise UsageError(
            f"there is no token to write to {repo_id} with",
            fix="hf auth login, or set HF_TOKEN; or look first: --dry-run FOLDER",
        )

    def put(local_files_only: bool = False) -> str:
        if local_files_only:
            raise OSError(f"{ENDPOINT} does not answer")
        api = HfApi()
        # the visibility of one that is there already stays what it is
        address = api.create_repo(repo_id, private=private, exist_ok=True)
        with without_hub_bars():
            api.upload_folder(repo_id=repo_id, folder_path=str(folder), commit_message=message)
        return str(address)

    return str(_asked_for(put, repo_id, _page(repo_id), cannot="cannot write to"))


def _download(repo_id: str, inside: PurePosixPath, revision: str | None) -> Path:
    from huggingface_hub import hf_hub_download

    from genzoo.pretrained.fetching import Fetching

    def get(**only: Any) -> str:
        return hf_hub_download(repo_id, str(inside), revision=revision, tqdm_class=Fetching, **only)

    page = f"{_page(repo_id)}/blob/{revision or 'main'}/{inside}"
    with doing(f"fetching {inside} of {repo_id}"):
        return Path(_asked_for(get, f"{inside} of {repo_id}", page))


def _page(repo_id: str) -> str:
    return f"https://huggingface.co/{repo_id}"


def _asked_for(get: Callable[..., str], what: str, where: str, cannot: str = "cannot fetch") -> str:
    """What the hub's library gives, or a WeightsError that says what and why."""
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
    )

    absent = not _answers()
    only: dict[str, Any] = {"local_files_only": True} if absent else {}
    try:
        return get(**only)
    except (
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        OSError,
    ) as error:
        text = " ".join(str(error).split()) or "no message"
        raise WeightsError(
            f"{cannot} {what}",
            where=where,
            why=f"{type(error).__name__}: {textwrap.shorten(text, 200, placeholder=' ...')}"
            + ("; the hub was asked once and does not answer" if absent else ""),
        ) from error


def _answers() -> bool:
    """Whether the hub is there: one attempt, where its own library makes six for every file.

    Proxies and endpoints of the environment hold. In offline mode (HF_HUB_OFFLINE) nobody is asked: the
    library knows.
    """
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session

    if constants.HF_HUB_OFFLINE:
        return True
    when, answered = _asked.get(constants.ENDPOINT, (float("-inf"), False))
    if time.monotonic() - when > REMEMBERED:
        try:
            get_session().head(constants.ENDPOINT, timeout=ANSWERS_WITHIN)
            answered = True
        except Exception:  # whatever the network's library raises: it is not there
            answered = False
        _asked[constants.ENDPOINT] = time.monotonic(), answered
    return answered


def _ways(repo_id: str, names: Sequence[str], instead: str) -> list[str]:
    """What one can do about files that are not to be had from here."""
    from huggingface_hub.constants import HF_HUB_CACHE

    owner, _, name = repo_id.rpartition("/")
    files = " ".join(f"'{one}'" if "*" in one else one for one in names)
    include = "--include " if "*" in files else ""
    cached = f"models--{owner + '--' if owner else ''}{name}"
    ways = [
        f"where there is a network, hf download {repo_id} {include}{files} --local-dir {name}, "
        f"and give that folder's path in place of {repo_id!r}",
        f"copy {cached} of another machine's hub cache into {HF_HUB_CACHE}",
    ]
    return [*ways, instead] if instead else ways
