"""Bodies of OpenAI's responses: what is supported, and nothing else. Nothing is stored between them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from .body import Body
from .openai_bodies import MAX_TOP_LOGPROBS, ChoiceFormat, JsonObjectFormat, Probability, RegexFormat, TextFormat


class InputText(Body):
    type: Literal["input_text", "output_text", "text"]
    text: str
    annotations: list[Any] | None = Field(None, max_length=0)
    logprobs: list[Any] | None = None


class InputMessage(Body):
    type: Literal["message"] | None = None
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[InputText]
    id: str | None = None
    status: str | None = None
    phase: None = None


class FunctionCallItem(Body):
    type: Literal["function_call"]
    call_id: str
    name: str
    arguments: str
    id: str | None = None
    status: str | None = None


class FunctionOutputItem(Body):
    type: Literal["function_call_output"]
    call_id: str
    output: str | list[InputText]
    id: str | None = None
    status: str | None = None


class ReasoningText(Body):
    type: Literal["reasoning_text"]
    text: str


class ReasoningItem(Body):
    type: Literal["reasoning"]
    id: str | None = None
    summary: list[Any] | None = Field(None, max_length=0)
    content: list[ReasoningText] | None = None
    encrypted_content: None = None
    status: str | None = None


class ResponsesSchemaFormat(Body):
    type: Literal["json_schema"]
    name: str
    schema_: dict[str, Any] = Field(alias="schema")
    description: str | None = None
    strict: bool | None = None


class TextSettings(Body):
    format: (
        Annotated[
            TextFormat | JsonObjectFormat | ResponsesSchemaFormat | RegexFormat | ChoiceFormat,
            Field(discriminator="type"),
        ]
        | None
    ) = None


class ResponsesTool(Body):
    type: Literal["function"]
    name: str = Field(pattern=r"^[\w.-]{1,128}$")
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class ChosenTool(Body):
    type: Literal["function"]
    name: str


class ResponsesBody(Body):
    model: str | None = None
    input: (
        str | Annotated[list[InputMessage | FunctionCallItem | FunctionOutputItem | ReasoningItem], Field(min_length=1)]
    )
    instructions: str | None = None
    max_output_tokens: int | None = Field(None, ge=1)
    stream: bool | None = None
    temperature: float | None = Field(None, ge=0)
    top_p: Probability | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    text: TextSettings | None = None
    tools: list[ResponsesTool] | None = None
    tool_choice: Literal["none", "auto", "required"] | ChosenTool | None = None
    parallel_tool_calls: bool | None = None
    include: list[Literal["message.output_text.logprobs"]] | None = None
    truncation: Literal["disabled"] | None = None
    store: Literal[False] | None = None
    # Labels for the operator, without any effect on the answer.
    metadata: dict[str, str] | None = None
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    # Beyond OpenAI's.
    top_k: int | None = Field(None, ge=0)
    min_p: Probability | None = None
    seed: int | None = None
    mode: Literal["ar", "diffusion", "auto"] | None = None
    block_size: int | None = Field(None, ge=2, le=32)
    chat_template_kwargs: dict[str, Any] | None = None
