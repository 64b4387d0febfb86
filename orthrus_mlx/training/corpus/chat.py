"""Qwen's chat format without think blocks: a renderer and the same as a Jinja template."""

from __future__ import annotations

from collections.abc import Sequence

from orthrus_mlx.training.corpus.core import Example, Message

END_OF_TEXT = "<|endoftext|>"
TURN_START = "<|im_start|>"
TURN_END = "<|im_end|>"
MASK = "<|mask|>"

# `enable_thinking` is accepted and ignored: the demo model has no thinking mode to switch off.
CHAT_TEMPLATE = (
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}"
    "{{- '<|im_start|>assistant\\n' }}"
    "{%- endif %}"
)


def render_chat(messages: Sequence[Message], add_generation_prompt: bool = False) -> str:
    """The conversation as one string; with `add_generation_prompt` an open assistant turn ends it."""
    text = "".join(f"{TURN_START}{m['role']}\n{m['content']}{TURN_END}\n" for m in messages)
    return text + f"{TURN_START}assistant\n" if add_generation_prompt else text


def render_prompt(example: Example) -> str:
    """What the model is given: everything before the reference answer."""
    if example.raw:
        return example.messages[0]["content"]
    return render_chat(example.prompt, add_generation_prompt=True)


def render_document(example: Example) -> str:
    """The training document, closed by the end-of-text token."""
    if example.raw:
        question, answer = example.messages
        return f"{question['content']}\n{answer['content']}{END_OF_TEXT}"
    return render_chat(example.messages) + END_OF_TEXT
