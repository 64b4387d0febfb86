"""From chat messages to prompt text, by the checkpoint's own chat template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .errors import RequestError

Message = dict[str, Any]
"""{"role": "system" | "user" | "assistant" | "tool", "content": text}, and what else the template knows."""


def render(
    tokenizer: Any, messages: Sequence[Message], template_options: Mapping[str, Any], tools: Sequence[Any] | None = None
) -> str:
    """The conversation as text with an open assistant turn at its end.

    Args:
        tokenizer: an mlx-lm `TokenizerWrapper`.
        template_options: passed on to the template, such as `enable_thinking`.
        tools: function definitions that the model may call, in OpenAI's form.

    Raises:
        RequestError: the tokenizer has no template, or the template refuses these messages.
    """
    if not tokenizer.has_chat_template:
        raise RequestError(
            "the model's tokenizer has no chat template; use `orthrus-mlx generate --ignore-chat-template`"
        )
    try:
        options = {**template_options, **({"tools": list(tools)} if tools else {})}
        return tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False, **options)
    except Exception as error:
        # A template is a program of the checkpoint: it raises whatever its author, or Jinja, liked.
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise RequestError(f"the model's chat template refuses this conversation ({reason})") from error


def with_system(system: str | None, messages: Sequence[Message]) -> list[Message]:
    """The messages behind the system prompt, if there is one."""
    return ([{"role": "system", "content": system}] if system else []) + list(messages)


def think_markers(tokenizer: Any) -> tuple[str, str] | None:
    """The strings that open and close a thought, for a model that thinks."""
    return (tokenizer.think_start, tokenizer.think_end) if tokenizer.has_thinking else None


def opens_thought(prompt: str, markers: tuple[str, str] | None) -> bool:
    """Whether the answer to `prompt` begins inside a thought: some templates open it themselves."""
    return markers is not None and prompt.rstrip().endswith(markers[0])
