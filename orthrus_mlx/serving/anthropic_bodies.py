"""Bodies of Anthropic's messages: what is supported, and nothing else."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from .body import Body
from .openai_bodies import MAX_STOPS, Probability, Stop


class CacheControl(Body):
    """Accepted everywhere: prefixes are kept without being asked."""

    type: Literal["ephemeral"]
    ttl: str | None = None


class TextBlock(Body):
    type: Literal["text"]
    text: str
    cache_control: CacheControl | None = None
    citations: None = None


class ThinkingBlock(Body):
    type: Literal["thinking"]
    thinking: str
    signature: str | None = None


class ToolUseBlock(Body):
    type: Literal["tool_use"]
    id: str
    name: str
    input: dict[str, Any]
    cache_control: CacheControl | None = None


class ToolResultBlock(Body):
    type: Literal["tool_result"]
    tool_use_id: str
    content: str | list[TextBlock] | None = None
    is_error: bool | None = None
    cache_control: CacheControl | None = None


Block = Annotated[TextBlock | ThinkingBlock | ToolUseBlock | ToolResultBlock, Field(discriminator="type")]


class Message(Body):
    role: Literal["user", "assistant"]
    content: str | list[Block]


class AnthropicTool(Body):
    type: Literal["custom"] | None = None
    name: str = Field(pattern=r"^[\w.-]{1,128}$")
    description: str | None = None
    input_schema: dict[str, Any]
    cache_control: CacheControl | None = None


class ToolChoice(Body):
    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class Thinking(Body):
    """Whether the model thinks, and the most tokens of its thoughts."""

    type: Literal["enabled", "disabled", "adaptive"]
    budget_tokens: int | None = Field(None, ge=0)


class Metadata(Body):
    user_id: str | None = None


class CountBody(Body):
    """What `count_tokens` takes: the parts of a request that make its prompt."""

    model: str | None = None
    messages: list[Message] = Field(min_length=1)
    system: str | list[TextBlock] | None = None
    tools: list[AnthropicTool] | None = None
    tool_choice: ToolChoice | None = None
    thinking: Thinking | None = None


class MessagesBody(CountBody):
    max_tokens: int = Field(ge=1)
    stream: bool | None = None
    temperature: float | None = Field(None, ge=0)
    top_p: Probability | None = None
    top_k: int | None = Field(None, ge=0)
    stop_sequences: list[Stop] | None = Field(None, max_length=MAX_STOPS)
    metadata: Metadata | None = None
    cache_control: CacheControl | None = None
    # Beyond Anthropic's.
    seed: int | None = None
    mode: Literal["ar", "diffusion", "auto"] | None = None
    block_size: int | None = Field(None, ge=2, le=32)
