"""The stages that make the demo model, each skipped when its output exists."""

from __future__ import annotations

import itertools
import multiprocessing
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from ..atomic_file import write_json, write_text
from ..config import ModelArgs
from ..loading import load_model, load_tokenizer, read_config
from ..model import Model
from .checkpoint import copy_tokenizer, save_model, side_car_config, with_diffusion_view
from .corpus import save_tokenizer, train_tokenizer, training_documents
from .cotrain import cotraining_loss
from .data import Rows
from .documents import CHUNK, rows_of_chunk
from .model_card import model_card
from .parameters import flat_parameters, load_parameters
from .plan import STAGES, Plan, demo_config
from .pretrain import initial_parameters, pretraining_loss
from .trainer import Settings, Trainer


class Demo:
    """One run: `out` receives the finished model, `work` everything in between."""

    def __init__(self, plan: Plan, out: Path, work: Path, workers: int, stop_after_minutes: float | None):
        self.plan, self.out, self.work, self.workers = plan, out, work, workers
        self.deadline = None if stop_after_minutes is None else time.monotonic() + 60 * stop_after_minutes
        self.base = work / "base"
        self.tokenizer_file = self.base / "tokenizer.json"

    @property
    def minutes_left(self) -> float | None:
        return None if self.deadline is None else max(self.deadline - time.monotonic(), 0.0) / 60

    def run(self, until: str) -> bool:
        """Make everything up to stage `until`. Returns whether it is done; False after running out of time."""
        outputs = {
            "tokenizer": self.tokenizer_file,
            "rows": self.work / "pretrain.npz",
            "base": self.base / "config.json",
            "model": self.out / "config.json",
            "evaluation": self.out / "README.md",
        }
        for stage in STAGES[: STAGES.index(until) + 1]:
            # With the base made, the rows it was trained on are not needed any more.
            if outputs[stage].exists() or (stage == "rows" and outputs["base"].exists()):
                say(f"{stage}: there already ({outputs[stage]})")
                continue
            started = time.monotonic()
            if not getattr(self, f"make_{stage}")():
                say(f"{stage}: out of time, checkpoint written; run the same command again")
                return False
            say(f"{stage}: done in {time.monotonic() - started:.0f} s")
        return True

    def make_tokenizer(self) -> bool:
        texts = training_documents(self.plan.seed, self.plan.tokenizer_documents)
        save_tokenizer(train_tokenizer(texts, self.plan.vocab_size), self.base)
        write_json(self.base / "generation_config.json", {"eos_token_id": [2, 0], "pad_token_id": 0})
        return True

    def _over_chunks(self, function: Any, first: int, documents: int, *more: Any) -> list[Any]:
        """`function(tokenizer file, seed, chunk, documents in it, *more)` of every chunk, in order, on all workers."""
        sizes = [min(CHUNK, documents - start) for start in range(0, documents, CHUNK)]
        fixed = [itertools.repeat(v) for v in more]
        # Not forked: a child of a process that has opened a GPU must not inherit it.
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(min(self.workers, len(sizes)), context) as pool:
            chunks = range(first, first + len(sizes))
            seeds, files = itertools.repeat(self.plan.seed), itertools.repeat(self.tokenizer_file)
            return list(pool.map(function, files, seeds, chunks, sizes, *fixed))

    def make_rows(self) -> bool:
        parts = self._over_chunks(rows_of_chunk, 0, self.plan.documents, self.plan.row_length)
        rows = Rows.concatenate(parts)
        rows.save(self.work / "pretrain.npz")
        say(f"{len(rows)} rows, {np.count_nonzero(rows.segments):,} tokens, {(rows.segments > 0).mean():.1%} full")
        return True

    def make_base(self) -> bool:
        plan = self.plan
        config = demo_config(plan)
        model = Model(ModelArgs.from_dict(config))
        trainer = Trainer(
            "pre-training",
            initial_parameters(model, plan.seed),
            pretraining_loss(model, mx.bfloat16),
            Rows.load(self.work / "pretrain.npz"),
            Settings(plan.pretrain_steps, plan.pretrain_batch, plan.pretrain_rate, weight_decay=0.1, seed=plan.seed),
            self.work / "pretrain",
        )
        trainer.resume()
        if not trainer.run(self.minutes_left):
            return False
        load_parameters(model, trainer.parameters, lambda p: p)
        save_model(model, config, self.base, mx.bfloat16)
        return True

    def make_model(self) -> bool:
        plan = self.plan
        first = -(-plan.documents // CHUNK)  # chunks the base has not seen
        rows = Rows.concatenate(self._over_chunks(rows_of_chunk, first, plan.cotrain_documents, plan.row_length))
        config = side_car_config(demo_config(plan), plan.block_size, plan.vocab_size - 1)
        model = with_diffusion_view(load_model(self.base, read_config(self.base)), config)
        trainer = Trainer(
            "co-training",
            {name: weight.astype(mx.float32) for name, weight in flat_parameters(model).items()},
            cotraining_loss(model, plan.anchors, mx.bfloat16),
            rows,
            Settings(plan.cotrain_steps, plan.cotrain_batch, plan.cotrain_rate, seed=plan.seed),
            self.work / "cotrain",
            {"anchors": plan.anchors, "block_size": plan.block_size},
            compiled=False,  # see distillation_loss
        )
        trainer.resume()
        if not trainer.run(self.minutes_left):
            return False
        load_parameters(model, trainer.parameters, lambda p: p)
        copy_tokenizer(self.base, self.out)
        save_model(model, config, self.out, mx.bfloat16)
        return True

    def make_evaluation(self) -> bool:
        from .evaluate import evaluate

        config = read_config(self.out)
        model, tokenizer = load_model(self.out, config), load_tokenizer(self.out, config)
        report = evaluate(model, tokenizer, self.plan.questions, self.plan.decoded)
        write_json(self.work / "evaluation.json", report)
        write_text(self.out / "README.md", model_card(self.plan, model, report))
        return True


def say(text: str) -> None:
    """A line of progress."""
    print(text, file=sys.stderr, flush=True)
