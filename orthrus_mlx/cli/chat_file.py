"""Chats on disk: JSON that a person can read, written atomically, checked when it comes back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..atomic_file import write_json
from ..errors import CheckpointError, RequestError
from ..json_file import read_object
from ..prompts import Message

FORMAT = "orthrus-mlx chat 1"


def save_chat(file: Path, *, model: str, system: str | None, messages: list[Message]) -> None:
    """Write the chat to `file`; an earlier chat of that name is replaced, any other file is not.

    Raises:
        RequestError: the file is something else, or the disk refuses it.
    """
    if file.exists() and not _is_chat(file):
        raise RequestError(f"{file}: exists and is not a saved chat; give another name")
    if not file.parent.is_dir():
        raise RequestError(f"{file}: there is no folder {file.parent}; give another name")
    chat = {"format": FORMAT, "model": model, "system": system, "messages": messages}
    try:
        write_json(file, chat)
    except OSError as error:
        raise RequestError(f"{file}: cannot be written ({error.strerror}); give another name") from error


def load_chat(file: Path) -> tuple[str | None, list[Message], str]:
    """(system prompt, messages, name of the model) of a saved chat.

    Raises:
        RequestError: the file is missing, damaged or not a saved chat.
    """
    try:
        chat = read_object(file)
    except CheckpointError as error:
        raise RequestError(f"{error}; give a file that /save wrote") from error
    if chat.get("format") != FORMAT:
        raise RequestError(f"{file}: not a saved chat (format {chat.get('format')!r}, expected {FORMAT!r})")
    system, messages, model = chat.get("system"), chat.get("messages"), chat.get("model")
    if not (system is None or isinstance(system, str)) or not isinstance(model, str):
        raise RequestError(f"{file}: `system` and `model` must be text")
    if not isinstance(messages, list) or len(messages) % 2 or not all(map(_is_turn, messages, range(len(messages)))):
        raise RequestError(f"{file}: `messages` must be user and assistant messages in turn")
    return system, [{"role": m["role"], "content": m["content"]} for m in messages], model


def _is_turn(message: Any, index: int) -> bool:
    if not isinstance(message, dict) or not isinstance(message.get("content"), str):
        return False
    return message.get("role") == ("user", "assistant")[index % 2]


def _is_chat(file: Path) -> bool:
    try:
        return read_object(file).get("format") == FORMAT
    except CheckpointError:
        return False
