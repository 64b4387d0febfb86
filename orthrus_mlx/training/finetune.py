"""What `orthrus-mlx train` does: data -> rows -> distillation -> side-car folder."""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from pathlib import Path

from mlx_lm.tokenizer_utils import TokenizerWrapper

from ..config import MAX_BLOCK_SIZE
from ..errors import TrainingError
from ..hub import resolve
from ..loading import load_model, load_tokenizer, read_config
from ..model import Model
from .checkpoint import copy_tokenizer, save_model, side_car_config, with_diffusion_view
from .data import ChatFormat, Rows, chat_document, pack, read_jsonl
from .distill import diffusion_parameters, distillation_loss
from .parameters import load_parameters
from .self_answer import answer_documents
from .trainer import STATE_FILE, Settings, Trainer


def distil_checkpoint(args: argparse.Namespace) -> bool:
    """Run the command (`orthrus_mlx.cli.train`). Returns whether training is finished.

    Raises:
        TrainingError: settings or data that cannot be trained with, or a checkpoint of another run.
        CheckpointError: the base cannot be loaded.
    """
    work = args.output / "training"
    if (work / STATE_FILE).exists() and not args.resume:
        raise TrainingError(f"{work}: holds a run already; add --resume to continue it, or choose another --output")
    if args.row_length <= args.block_size or not 2 <= args.block_size <= MAX_BLOCK_SIZE:
        raise TrainingError(
            f"--block-size {args.block_size} must lie in 2..{MAX_BLOCK_SIZE} and below --row-length {args.row_length}"
        )
    folder = resolve(args.model)
    config = read_config(folder)
    base, tokenizer = load_model(folder, config), load_tokenizer(folder, config)
    block_size, mask_token_id = _block_settings(args, base, tokenizer)
    config = side_car_config(config, block_size, mask_token_id)
    model = with_diffusion_view(base, config)
    rows = _rows(args, folder, model, tokenizer, work)
    dtype = model.model.norm.weight.dtype
    trainer = Trainer(
        "distillation",
        diffusion_parameters(model),
        distillation_loss(model, args.anchors, dtype),
        rows,
        Settings(args.steps, args.batch_size, args.learning_rate, seed=args.seed),
        work,
        {"model": str(args.model), "anchors": args.anchors, "block_size": block_size, "mask_token_id": mask_token_id},
        compiled=False,  # see distillation_loss
    )
    if args.resume:
        trainer.resume()
    if not trainer.run(args.stop_after_minutes):
        return False
    load_parameters(model, trainer.parameters, lambda p: p.astype(dtype))
    copy_tokenizer(folder, args.output)
    save_model(model, config, args.output)
    return True


def _block_settings(args: argparse.Namespace, base: Model, tokenizer: TokenizerWrapper) -> tuple[int, int]:
    block_size, mask_token_id = base.args.block_size, base.args.mask_token_id
    if block_size is not None and mask_token_id is not None:
        print("the checkpoint has a diffusion view; training goes on from it", file=sys.stderr)
        return block_size, mask_token_id
    mask = len(tokenizer.get_vocab()) if args.mask_token_id is None else args.mask_token_id
    if not 0 <= mask < base.args.vocab_size:
        raise TrainingError(
            f"mask token {mask}: the embedding has {base.args.vocab_size} rows; "
            f"give --mask-token-id a row that no text uses"
        )
    return args.block_size, mask


def _rows(args: argparse.Namespace, folder: Path, model: Model, tokenizer: TokenizerWrapper, work: Path) -> Rows:
    """The packed rows, from the file of an earlier try where data and settings are the same."""
    try:
        data = args.data.stat()
    except OSError as error:
        raise TrainingError(f"--data {args.data}: cannot be read ({error.strerror})") from error
    sources = [str(folder), str(args.data), data.st_size, data.st_mtime_ns, args.row_length, args.self_answer]
    key = hashlib.sha256(json.dumps(sources).encode()).hexdigest()[:12]
    path = work / f"rows-{key}.npz"
    if path.exists():
        return Rows.load(path)

    def encode(text: str) -> list[int]:
        return tokenizer.encode(text, add_special_tokens=False)

    chat = ChatFormat.of(encode)
    documents = [chat_document(encode(text), chat) for text in read_jsonl(args.data, tokenizer)]
    if args.self_answer:
        stops = frozenset(tokenizer.eos_token_ids)
        documents = answer_documents(model, documents, stops, args.row_length, args.answer_batch, _show)
    answered = [d for d in documents if d.answers[: args.row_length].any()]
    if not answered:
        raise TrainingError(f"--data {args.data}: no document has an answer to learn from; add --self-answer")
    if len(answered) < len(documents):
        print(f"{len(documents) - len(answered)} documents without an answer left out", file=sys.stderr)
    rows = pack(answered, args.row_length, model.args.vocab_size)
    rows.save(path)
    return rows


def _show(done: int, total: int) -> None:
    print(f"answered {done}/{total}", file=sys.stderr, flush=True)
