"""The tokenizer's files: checked against the model's settings, then copied; nothing in them is ever run."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sentencepiece import SentencePieceProcessor

from orthrus_mlx.config import ModelArgs
from orthrus_mlx.errors import CheckpointError, ConfigError
from orthrus_mlx.json_file import read_object
from orthrus_mlx.safetensors_file import quoted

from .target import write_file

_FAST, _SENTENCE_PIECE, _SETTINGS = "tokenizer.json", "tokenizer.model", "tokenizer_config.json"
_COPIED = (
    _FAST,
    _SENTENCE_PIECE,
    "added_tokens.json",
    "special_tokens_map.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
)
_SENTENCE_PIECE_CLASSES = ("LlamaTokenizer", "BarthezTokenizer")  # plain BPE and plain unigram: no added tokens
_LICENCES = ("LICENSE*", "NOTICE*")


def check_tokenizer(folder: Path, args: ModelArgs, config: dict[str, Any]) -> None:
    """Check that the folder's tokenizer fits the model.

    Raises:
        CheckpointError: no fast (`tokenizer.json`) or SentencePiece (`tokenizer.model`) tokenizer, a damaged one,
            or token ids beyond the model's vocabulary.
        ConfigError: `mask_token_id` is a token that text or a turn's end produces.
    """
    if (folder / _FAST).is_file():
        ordinary, special = _fast_ids(folder / _FAST)
    elif (folder / _SENTENCE_PIECE).is_file():
        ordinary, special = _sentence_piece_ids(folder)
    else:
        raise CheckpointError(f"{folder}: no tokenizer; expected {_FAST} or {_SENTENCE_PIECE}")
    largest = max([*ordinary, *special], default=-1)
    if largest >= args.vocab_size:
        raise CheckpointError(
            f"{folder}: the tokenizer has token id {largest}, but config.json's vocab_size is {args.vocab_size}"
        )
    if args.mask_token_id is None:
        return
    if args.mask_token_id in _end_ids(folder, config, special):
        raise ConfigError(f"config.json: mask_token_id {args.mask_token_id} is an end-of-text token; it must be unused")
    if args.mask_token_id in ordinary:
        token = quoted(ordinary[args.mask_token_id])
        raise ConfigError(
            f"config.json: mask_token_id {args.mask_token_id} is the tokenizer's {token}; it must be unused"
        )


def copy_tokenizer(source: Path, target: Path) -> None:
    """Copy what a tokenizer consists of (and licences) into `target`; settings lose their `auto_map`.

    A SentencePiece tokenizer without `tokenizer.json` gets a `tokenizer_class` that reads it as SentencePiece does:
    without one, transformers takes a Qwen3 folder's for Qwen2's and loses the spaces.

    Raises:
        CheckpointError: transformers has no class that gives this SentencePiece model's own token ids.
    """
    files = [source / name for name in _COPIED if (source / name).is_file()]
    files += sorted(file for pattern in _LICENCES for file in source.glob(pattern) if file.is_file())
    for file in files:
        write_file(target / file.name, file.read_bytes())
    settings = read_object(source / _SETTINGS) if (source / _SETTINGS).is_file() else {}
    settings.pop("auto_map", None)  # names Python code beside the checkpoint, which never runs here
    if not (source / _FAST).is_file():
        settings["tokenizer_class"] = _sentence_piece_class(source / _SENTENCE_PIECE, settings)
    write_file(target / _SETTINGS, json.dumps(settings, indent=2).encode())


def fast_tokenizer(folder: Path) -> Path | None:
    """The folder's `tokenizer.json`; None where there is none, but a SentencePiece model."""
    return folder / _FAST if (folder / _FAST).is_file() else None


def added_and_end_ids(folder: Path, config: dict[str, Any]) -> set[int]:
    """Ids of the tokens that were added to the vocabulary, special or not, and of those that end a text.

    Raises:
        CheckpointError, ConfigError: as `check_tokenizer`.
    """
    file = fast_tokenizer(folder)
    if file is None:
        _, special = _sentence_piece_ids(folder)
        return set(special) | _end_ids(folder, config, special)
    _, special = _fast_ids(file)
    added = {token["id"] for token in read_object(file).get("added_tokens") or []}
    return added | _end_ids(folder, config, special)


def _sentence_piece_class(file: Path, settings: dict[str, Any]) -> str:
    """The first class, the checkpoint's own before others, that encodes a text as SentencePiece itself does."""
    from mlx_lm import tokenizer_utils  # a second of import that no other conversion needs

    pieces = SentencePieceProcessor(model_file=str(file))
    # A text of the model's own pieces: on unknown characters even good classes differ (SentencePiece merges them).
    normal = [i for i in range(pieces.GetPieceSize()) if not (pieces.IsControl(i) or pieces.IsUnknown(i))]
    sample = " ".join(pieces.decode([i for i in normal if not pieces.IsByte(i)][:500]).split())
    expected = pieces.encode(sample)
    own = settings.get("tokenizer_class")
    with tempfile.TemporaryDirectory() as trial:
        shutil.copyfile(file, Path(trial) / _SENTENCE_PIECE)
        for name in ([own] if isinstance(own, str) else []) + list(_SENTENCE_PIECE_CLASSES):
            (Path(trial) / _SETTINGS).write_text(json.dumps({"tokenizer_class": name}))
            try:
                tokenizer = tokenizer_utils.load(Path(trial), {"trust_remote_code": False})
                if tokenizer.encode(sample, add_special_tokens=False) == expected:
                    return name
            # transformers raises whatever its parsers meet; this class will not do, whichever it is.
            except Exception:
                continue
    raise CheckpointError(f"{file}: transformers reads it unlike SentencePiece; give the folder a {_FAST} instead")


def _fast_ids(file: Path) -> tuple[dict[int, str], dict[int, str]]:
    """(ordinary, special) tokens by id."""
    content = read_object(file)
    model = content.get("model")
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    added = content.get("added_tokens") or []
    if isinstance(vocabulary, list):  # Unigram: [piece, score] by id
        pairs = [(str(piece[0]) if isinstance(piece, list) and piece else "", i) for i, piece in enumerate(vocabulary)]
    elif isinstance(vocabulary, dict):
        pairs = list(vocabulary.items())
    else:
        raise CheckpointError(f"{file}: corrupt tokenizer: model.vocab is missing")
    if not isinstance(added, list):
        raise CheckpointError(f"{file}: corrupt tokenizer: added_tokens must be a list")
    tokens = {_token_id(file, token, i): token for token, i in pairs}
    special: dict[int, str] = {}
    for token in added:
        if not isinstance(token, dict):
            raise CheckpointError(f"{file}: corrupt tokenizer: added_tokens must hold objects")
        text = str(token.get("content"))
        i = _token_id(file, text, token.get("id"))
        tokens.pop(i, None)
        (special if token.get("special") else tokens)[i] = text
    return tokens, special


def _sentence_piece_ids(folder: Path) -> tuple[dict[int, str], dict[int, str]]:
    file = folder / _SENTENCE_PIECE
    pieces = SentencePieceProcessor()
    try:
        pieces.LoadFromSerializedProto(file.read_bytes())
        names = [pieces.IdToPiece(i) for i in range(pieces.GetPieceSize())]
    except (RuntimeError, OSError) as error:
        raise CheckpointError(f"{file}: corrupt tokenizer: {str(error).splitlines()[0]}") from None
    special = {i: name for i, name in enumerate(names) if pieces.IsControl(i) or pieces.IsUnknown(i)}
    ordinary = {i: name for i, name in enumerate(names) if i not in special and not pieces.IsUnused(i)}
    if (folder / "added_tokens.json").is_file():
        added = read_object(folder / "added_tokens.json")
        special |= {_token_id(folder / "added_tokens.json", token, i): token for token, i in added.items()}
    return ordinary, special


def _token_id(file: Path, token: str, value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise CheckpointError(f"{file}: corrupt tokenizer: token {quoted(token)} has id {value!r:.80}")
    return value


def _end_ids(folder: Path, config: dict[str, Any], special: dict[int, str]) -> set[int]:
    ends = set(_eos_ids("config.json", config))
    if (folder / "generation_config.json").is_file():
        ends |= set(_eos_ids("generation_config.json", read_object(folder / "generation_config.json")))
    if (folder / _SETTINGS).is_file():
        token = read_object(folder / _SETTINGS).get("eos_token")
        text = token.get("content") if isinstance(token, dict) else token
        ends |= {i for i, name in special.items() if name == text}
    return ends


def _eos_ids(where: str, settings: dict[str, Any]) -> Iterable[int]:
    value = settings.get("eos_token_id")
    ids = value if isinstance(value, list) else [] if value is None else [value]
    if not all(isinstance(i, int) and not isinstance(i, bool) for i in ids):
        raise ConfigError(f"{where}: eos_token_id must be an integer or a list of them, not {value!r:.80}")
    return ids
