"""The demo model's tokenizer: byte-level BPE with single digits, trained on the corpus."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from orthrus_mlx.atomic_file import write_json, write_text
from orthrus_mlx.errors import TrainingError
from orthrus_mlx.training.corpus.chat import CHAT_TEMPLATE, END_OF_TEXT, MASK, TURN_END, TURN_START

# Qwen2's pre-tokenizer pattern (\p{N} alone splits numbers into digits) but for the end of a sentence, which does not
# swallow the line break after it: "area?" must be the same tokens at the end of a prompt and before its answer's line.
_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+(?:(?<![.?!])[\r\n]+)?"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def train_tokenizer(texts: Iterable[str], vocab_size: int = 4096) -> Tokenizer:
    """Train a byte-level BPE of exactly `vocab_size` entries.

    Ids 0, 1, 2 are `<|endoftext|>`, `<|im_start|>`, `<|im_end|>`; the last id is `<|mask|>`, which no text
    produces. Raises TrainingError when `texts` are too few for that many entries.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    # These very settings are what mlx-lm recognises as a decoder its BPE streaming detokenizer can stand for.
    tokenizer.decoder = decoders.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)  # type: ignore[call-arg]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - 1,
        special_tokens=[END_OF_TEXT, TURN_START, TURN_END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_special_tokens([AddedToken(MASK, special=True, normalized=False)])
    if tokenizer.get_vocab_size() != vocab_size:
        raise TrainingError(
            f"the tokenizer text gave {tokenizer.get_vocab_size()} entries, expected {vocab_size}; give more text"
        )
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, folder: str | Path) -> None:
    """Write `tokenizer.json` and `tokenizer_config.json` into `folder`, each one atomically."""
    special = [END_OF_TEXT, TURN_START, TURN_END, MASK]
    config = {
        "add_prefix_space": False,
        "added_tokens_decoder": {
            str(tokenizer.token_to_id(token)): {
                "content": token,
                "lstrip": False,
                "normalized": False,
                "rstrip": False,
                "single_word": False,
                "special": True,
            }
            for token in special
        },
        "bos_token": None,
        "chat_template": CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": False,
        "eos_token": TURN_END,
        "model_max_length": 2048,
        "pad_token": END_OF_TEXT,
        "tokenizer_class": "PreTrainedTokenizerFast",
        "unk_token": None,
    }
    target = Path(folder)
    write_text(target / "tokenizer.json", tokenizer.to_str(pretty=True))
    write_json(target / "tokenizer_config.json", config)
