"""From a name to a local folder: a path, or a Hugging Face repository, fetched without its code."""

from __future__ import annotations

import re
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from .errors import CheckpointError

# Weights, settings and tokenizers of either kind; no pickles and no Python.
PATTERNS = ("*.safetensors", "*.json", "*.jinja", "tokenizer.model", "*.txt", "README.md")
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")


def resolve(path_or_hf_repo: str | Path, revision: str | None = None) -> Path:
    """The local folder of a checkpoint, downloaded to Hugging Face's cache if need be.

    Raises:
        CheckpointError: neither a folder nor a repository that can be read, with the way out.
    """
    name = str(path_or_hf_repo)
    try:
        folder = Path(path_or_hf_repo).expanduser()
        if folder.is_dir():
            return folder
        if folder.exists():
            raise CheckpointError(f"{name}: not a folder; give the folder that holds config.json")
    except (OSError, RuntimeError) as error:  # no permission, a name too long, no home for ~name
        raise CheckpointError(f"{name[:200]}: cannot be opened ({error})") from error
    if not _REPOSITORY.fullmatch(name) or name.startswith("."):
        raise CheckpointError(f"{name}: no such folder, and not a Hugging Face id (owner/name)")
    at = f"{name}@{revision}" if revision else name
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=list(PATTERNS)))
    except GatedRepoError as error:
        raise CheckpointError(f"{at}: access is gated; accept its terms on the hub, then `hf auth login`") from error
    except RevisionNotFoundError as error:
        raise CheckpointError(f"{at}: the repository has no such revision") from error
    except RepositoryNotFoundError as error:
        raise CheckpointError(
            f"{at}: no such folder here and no such repository on the hub (or it is private)"
        ) from error
    except LocalEntryNotFoundError as error:
        raise CheckpointError(f"{at}: not downloaded yet, and the hub cannot be reached; check the network") from error
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise CheckpointError(f"{at}: the download failed ({str(error).splitlines()[0]})") from error
