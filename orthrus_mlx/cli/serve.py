"""`orthrus-mlx serve`: the HTTP server over one model."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from pathlib import Path

from ..errors import RequestError
from .options import add_model_arguments, json_object, number

API_KEY_VARIABLE = "ORTHRUS_API_KEY"
_EXTRA = "the server's packages are missing ({name}); install them: pip install 'orthrus-mlx[serve]'"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of `serve` on `parser`, named as mlx_lm.server's where it has one."""
    add_model_arguments(parser)
    server = parser.add_argument_group("server")
    server.add_argument("--host", default="127.0.0.1", help="address to bind (default: 127.0.0.1, this machine alone)")
    server.add_argument(
        "--port", type=number(int, 0, 65535), default=8080, metavar="N", help="0 takes a free one (8080)"
    )
    server.add_argument(
        "--allowed-origins",
        default="",
        metavar="LIST",
        help="web origins allowed to call, with commas; none by default",
    )
    server.add_argument(
        "--api-key", metavar="KEY", help=f"key that clients must send (default: ${API_KEY_VARIABLE}, else none)"
    )
    server.add_argument(
        "--served-model-name",
        action="append",
        default=[],
        metavar="NAME",
        help="a name of the model for clients; repeatable",
    )
    server.add_argument(
        "--log-level",
        default="INFO",
        choices=("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"),
        help="default: INFO; no level logs what was said",
    )

    limits = parser.add_argument_group("limits")
    limits.add_argument(
        "--max-requests", type=number(int, 1), default=64, metavar="N", help="running and waiting; beyond it 429 (64)"
    )
    limits.add_argument(
        "--max-running", type=number(int, 1), default=32, metavar="N", help="requests that share passes (32)"
    )
    limits.add_argument(
        "--memory-limit",
        type=number(int, 1),
        metavar="BYTES",
        help="for weights, caches and scratch; requests wait beyond it (default: what the machine recommends)",
    )
    limits.add_argument(
        "--max-body-bytes", type=number(int, 1024), default=8 * 2**20, metavar="N", help="of one request (8 MiB)"
    )
    limits.add_argument(
        "--max-prompt-tokens", type=number(int, 1), metavar="N", help="of one request (default: the model's context)"
    )
    limits.add_argument(
        "--request-timeout", type=number(float, 1), default=600.0, metavar="S", help="seconds of one request (600)"
    )

    decoding = parser.add_argument_group("defaults of requests")
    decoding.add_argument("--max-tokens", type=number(int, 1), default=512, metavar="N", help="of an answer (512)")
    decoding.add_argument("--temp", type=number(float, 0), default=0.0, metavar="T", help="0 (default) is greedy")
    decoding.add_argument("--top-p", type=number(float, 0, 1), default=1.0, metavar="P", help="1 is off")
    decoding.add_argument("--top-k", type=number(int, 0), default=0, metavar="K", help="0 is off")
    decoding.add_argument("--min-p", type=number(float, 0, 1), default=0.0, metavar="P", help="0 is off")
    decoding.add_argument("--mode", choices=("ar", "diffusion", "auto"), default="auto", help="default: auto")
    decoding.add_argument("--chat-template", metavar="TEXT_OR_FILE", help="in place of the model's own")
    decoding.add_argument(
        "--chat-template-args",
        type=json_object,
        default={},
        metavar="JSON",
        help="for the template, such as '{\"enable_thinking\": false}'",
    )
    decoding.add_argument(
        "--prefill-step-size", type=number(int, 1), default=512, metavar="N", help="prompt tokens per pass (512)"
    )

    prefixes = parser.add_argument_group("prefix cache")
    prefixes.add_argument(
        "--prefix-cache-bytes",
        type=number(int, 0),
        metavar="N",
        help="of keys and values kept for texts that begin alike; 0 keeps none (default: half of the free memory)",
    )
    prefixes.add_argument(
        "--prefix-cache-dir", type=Path, metavar="FOLDER", help="keep evicted ones there, over a restart too"
    )
    prefixes.add_argument(
        "--prefix-cache-dir-bytes", type=number(int, 1), default=16 * 2**30, metavar="N", help="most there (16 GiB)"
    )


def run(args: argparse.Namespace) -> int:
    """Serve until SIGTERM or Ctrl-C. Raises OrthrusError; returns the exit code."""
    try:
        from ..serving.app import build_app
        from ..serving.engine import Capacity, Engine
        from ..serving.guard import is_loopback
        from ..serving.server import serve
        from ..serving.service import Defaults, Limits, Service
    except ModuleNotFoundError as error:
        raise RequestError(_EXTRA.format(name=error.name)) from None
    from ..loading import load_tokenizer, read_config
    from .start import model_folder, open_model

    logging.basicConfig(level=args.log_level, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s")
    loaded = open_model(args.model, args.revision)
    tokenizer = loaded.tokenizer
    if args.chat_template:
        folder = model_folder(args.model, args.revision)
        # Loaded anew: what the model thinks and calls with is told by the template.
        tokenizer = load_tokenizer(folder, read_config(folder), {"chat_template": _template(args.chat_template)})
    engine = Engine(
        loaded.model,
        Capacity(
            requests=args.max_requests,
            running=args.max_running,
            prefill_step_size=args.prefill_step_size,
            memory=args.memory_limit,
            prefixes=args.prefix_cache_bytes,
            spill=args.prefix_cache_dir,
            spill_bytes=args.prefix_cache_dir_bytes,
        ),
    )
    service = Service(
        engine,
        tokenizer,
        # mlx-lm's clients call the model they do not name this.
        [
            *args.served_model_name,
            Path(loaded.name).name if Path(loaded.name).is_dir() else loaded.name,
            "default_model",
        ],
        Defaults(
            max_tokens=args.max_tokens,
            temperature=args.temp,
            top_p=args.top_p,
            top_k=args.top_k,
            min_p=args.min_p,
            mode=args.mode,
            chat_template_args=args.chat_template_args,
        ),
        Limits(body_bytes=args.max_body_bytes, prompt_tokens=args.max_prompt_tokens, seconds=args.request_timeout),
    )
    loopback = is_loopback(args.host)
    api_key = args.api_key or os.environ.get(API_KEY_VARIABLE)
    app = build_app(
        service,
        api_key=api_key,
        allowed_origins=tuple(o.strip() for o in args.allowed_origins.split(",") if o.strip()),
        loopback=loopback,
    )

    def announce(url: str) -> None:
        print(f"Serving {service.names[0]} at {url} (page: {url}/, API: {url}/v1), {engine.exactness}.", flush=True)
        if not loopback and api_key is None:
            print("Anyone who can reach this address can use the model: set --api-key.", file=sys.stderr, flush=True)

    serve(app, args.host, args.port, announce)
    return 0


def _template(given: str) -> str:
    """A template's text, or that of the file it names. Raises RequestError if the file cannot be read."""
    if "{" in given:
        return given
    try:
        return Path(given).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise RequestError(f"--chat-template: {given} cannot be read ({error})") from error
