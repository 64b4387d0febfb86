"""From a name to a local folder: a path, or a Hugging Face repository, fetched without its code."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import tqdm

from .errors import CheckpointError

# Weights, settings, tokenizers of either kind and licences of the top folder; no pickles and no Python.
PATTERNS = ("*.safetensors", "*.json", "*.jinja", "tokenizer.model", "*.txt", "README.md", "LICENSE*", "NOTICE*")
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")


def resolve(path_or_hf_repo: str | Path, revision: str | None = None) -> Path:
    """The local folder of a checkpoint, downloaded to Hugging Face's cache if need be.

    Args:
        path_or_hf_repo: a folder, or a Hugging Face id (owner/name).
        revision: a branch, tag or commit of the repository.

    Raises:
        CheckpointError: neither a checkpoint's folder nor a repository that can be read, or a revision of a folder.
    """
    name = str(path_or_hf_repo)
    try:
        folder = Path(path_or_hf_repo).expanduser()
        if folder.exists():
            _check_folder(folder, name, revision)
            return folder
    except (OSError, RuntimeError) as error:  # no permission, a name too long, no home for ~name
        raise CheckpointError(f"{name[:200]}: cannot be opened ({error})") from error
    neither = f"{name}: no such folder, and not a Hugging Face id (owner/name)"
    if not _REPOSITORY.fullmatch(name) or name.startswith("."):
        raise CheckpointError(neither)
    at = f"{name}@{revision}" if revision else name
    try:
        return Path(
            snapshot_download(
                name,
                revision=revision,
                allow_patterns=list(PATTERNS),
                ignore_patterns=["*/*"],  # to the client, "*.json" matches files of subfolders too
                tqdm_class=_TerminalBar,
            )
        )
    except GatedRepoError as error:
        raise CheckpointError(f"{at}: access is gated; accept its terms on the hub, then `hf auth login`") from error
    except RevisionNotFoundError as error:
        raise CheckpointError(f"{at}: the repository has no such revision") from error
    except RepositoryNotFoundError as error:
        raise CheckpointError(
            f"{at}: no such folder here and no such repository on the hub (or it is private)"
        ) from error
    except LocalEntryNotFoundError as error:
        raise CheckpointError(
            f"{at}: no such folder here, not (wholly) downloaded yet, and the hub cannot be reached; "
            "check the name and the network"
        ) from error
    except HFValidationError as error:  # the client's idea of a name is narrower
        raise CheckpointError(neither) from error
    except Exception as error:
        # The client also lets through whatever the HTTP library under it raises.
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f"{at}: the download failed ({reason}); try again, finished files are kept") from error


def _check_folder(folder: Path, name: str, revision: str | None) -> None:
    if not folder.is_dir():
        raise CheckpointError(f"{name}: not a folder; give the folder that holds config.json")
    if revision is not None:
        raise CheckpointError(
            f"{name}: a local folder has no revisions ({revision!r}); leave it out, or give a Hugging Face id"
        )
    if not (folder / "config.json").is_file():
        raise CheckpointError(f"{name}: holds no config.json; give the folder of a checkpoint")


class _TerminalBar(tqdm):
    """The client's progress bar, on a terminal only; the client's own choice leaves one of its bars everywhere."""

    def __init__(self, *args: Any, **settings: Any):
        super().__init__(*args, **{"disable": None, **settings})
