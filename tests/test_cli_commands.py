"""`orthrus-mlx` itself, `generate`, `info` and `convert`: output, errors of one line, exit codes."""

from __future__ import annotations

import argparse
import io
import re
import subprocess
import sys
from pathlib import Path

import mlx.core as mx
import pytest
from cli_models import COMMAND, run_process, token_id, write_checkpoint

from orthrus_mlx import __version__, load, stream_generate
from orthrus_mlx.cache import KVCache
from orthrus_mlx.cli import generate, start
from orthrus_mlx.cli.main import COMMANDS, main
from orthrus_mlx.cli.options import add_generation_arguments, generation_options

pytest_plugins = ["cli_fixtures"]


def failure(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """(exit code, stderr) of a command line that fails; stderr must be one line."""
    try:
        code = main(arguments)
    except SystemExit as exit:
        code = exit.code
    told = capsys.readouterr().err
    assert told.startswith("orthrus-mlx: error: ") and told.count("\n") == 1, told
    return code, told


# The command line itself ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command", [[], ["chat"], ["generate"], ["convert"], ["train"], ["bench"], ["info"], ["serve"]]
)
def test_help_imports_neither_mlx_nor_its_libraries(command, environment):
    program = (
        "import sys, contextlib\n"
        "from orthrus_mlx.cli.main import main\n"
        f"with contextlib.suppress(SystemExit): main({[*command, '--help']!r})\n"
        "heavy = {'mlx', 'mlx_lm', 'transformers', 'numpy', 'huggingface_hub', 'rich', 'prompt_toolkit'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    shown = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert shown.stdout.startswith(" ".join(["usage: orthrus-mlx", *command]))


def test_help_lists_the_commands(capsys):
    with pytest.raises(SystemExit) as exit:
        main(["--help"])
    assert exit.value.code == 0
    text = capsys.readouterr().out
    assert all(re.search(rf"^    {name} ", text, re.MULTILINE) for name in COMMANDS)


def test_version(capsys):
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == f"orthrus-mlx {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: COMMAND; see orthrus-mlx --help"),
        (["sing"], "argument COMMAND: invalid choice: 'sing'"),
        (["generate"], "required: --prompt/-p; see orthrus-mlx generate --help"),
        (["chat", "--sing"], "unrecognized arguments: --sing; see orthrus-mlx chat --help"),
        (["--sing"], "the following arguments are required: COMMAND; see orthrus-mlx --help"),
        (["--sing", "chat"], "unrecognized arguments: --sing; see orthrus-mlx --help"),
        (["train", "--seed", "-1"], "argument --seed: expected an integer in 0..4294967295, not '-1'"),
        (["chat", "--mode", "fast"], "argument --mode: invalid choice: 'fast'"),
        (["chat", "--block-size", "33"], "argument --block-size: expected an integer in 2..32, not '33'"),
        (["chat", "--temp", "-1"], "argument --temp: expected a number of at least 0, not '-1'"),
        (["chat", "--temp", "nan"], "argument --temp: expected a number of at least 0, not 'nan'"),
        (["chat", "--temp", "inf"], "argument --temp: expected a number of at least 0, not 'inf'"),
        (["chat", "--top-p", "1.5"], "argument --top-p: expected a number in 0..1, not '1.5'"),
        (["chat", "--top-k", "many"], "argument --top-k: expected an integer of at least 0, not 'many'"),
        (["chat", "--max-tokens", "0"], "argument --max-tokens/-m: expected an integer of at least 1, not '0'"),
        (["chat", "--seed", "4294967296"], "argument --seed: expected an integer in 0..4294967295"),
        (["chat", "--presence-penalty", "x"], "argument --presence-penalty: expected a number, not 'x'"),
        (["chat", "--logit-bias", "5"], "argument --logit-bias: expected ID=BIAS such as 42=-5, not '5'"),
        (["chat", "--logit-bias", "5=nan"], "argument --logit-bias: expected ID=BIAS"),
        (["chat", "--stop", ""], "argument --stop: expected some text"),
        (["chat", "--chat-template-config", "{"], "argument --chat-template-config: not valid JSON"),
        (["chat", "--chat-template-config", "[]"], "argument --chat-template-config: expected a JSON object, not '[]'"),
        (["generate", "-p", "x", "--verbose", "perhaps"], "argument --verbose: expected True or False, not 'perhaps'"),
        (["chat", "--mo\x1b[31m"], "unrecognized arguments: --mo;"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(capsys, arguments, message):
    code, told = failure(capsys, *arguments)
    assert code == 2 and message in told


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["generate", "-p", "x", "--model", "/no/such/folder"], "/no/such/folder: no such folder, and not a Hugging"),
        (["info", "--revision", "main"], "--revision needs --model: the demo model has none"),
        (["generate", "-p", "x", "--prompt-cache-file", "none.safetensors"], "none.safetensors: "),
        (["convert", "--hf-path", "/no/such/folder"], "/no/such/folder: no such folder"),
    ],
)
def test_our_errors_are_one_line_and_exit_code_1(capsys, arguments, message):
    code, told = failure(capsys, *arguments)
    assert code == 1 and message in told


def test_an_error_that_nobody_foresaw_is_one_line_that_asks_for_a_report(capsys, monkeypatch):
    def broken(arguments) -> int:
        raise ZeroDivisionError("by\nzero")

    monkeypatch.setattr(generate, "run", broken)
    code, told = failure(capsys, "generate", "-p", "x")
    assert code == 1
    assert "ZeroDivisionError: by zero (not foreseen: please report it with the trace that --verbose shows)" in told
    assert main(["generate", "-p", "x", "--verbose"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_verbose_shows_the_trace_of_our_errors(capsys):
    assert main(["info", "--model", "/no/such/folder", "--verbose"]) == 1
    told = capsys.readouterr().err
    assert "Traceback" in told and told.splitlines()[-1].startswith("orthrus-mlx: error: /no/such/folder")


def test_ctrl_c_is_exit_code_130(capsys, monkeypatch):
    def interrupted(arguments) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(generate, "run", interrupted)
    assert main(["generate", "-p", "x"]) == 130
    assert capsys.readouterr().err == ""


def test_a_broken_pipe_ends_the_run_quietly(parrot, environment):
    child = subprocess.Popen(
        [*COMMAND, "generate", "--model", str(parrot), "-p", "hello", "-m", "-1"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    child.stdout.read(20)
    child.stdout.close()
    told = child.stderr.read()
    assert child.wait(30) == 141
    assert told == b""


# generate ---------------------------------------------------------------------------------------------


def generated(capsys: pytest.CaptureFixture[str], folder: Path, *arguments: str) -> str:
    assert main(["generate", "--model", str(folder), *arguments]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out


def test_generate_prints_the_text_and_mlx_lms_block(capsys, parrot):
    text = generated(capsys, parrot, "-p", "hello", "-m", "16", "--mode", "diffusion")
    rule, answer, second_rule, prompt, speed, memory, cycles = text.splitlines()
    assert (rule, answer, second_rule) == ("=" * 10, "hello" * 16, "=" * 10)
    assert re.fullmatch(r"Prompt: 11 tokens, [\d.]+ tokens-per-sec", prompt)
    assert re.fullmatch(r"Generation: 16 tokens, [\d.]+ tokens-per-sec", speed)
    assert re.fullmatch(r"Peak memory: [\d.]+ GB", memory)
    assert cycles.startswith("Cycles: 2 cycles, 8.00 tokens per cycle, accepted 14/14 drafts")


def test_generate_prints_the_text_alone_when_not_verbose(capsys, parrot):
    assert generated(capsys, parrot, "-p", "hello", "-m", "3", "--verbose", "False") == "hellohellohello\n"


def test_generate_says_so_when_there_is_no_text(capsys, parrot):
    end = token_id(parrot, "<|im_end|>")
    text = generated(capsys, parrot, "-p", "hello", f"--logit-bias={end}=1e6")
    assert text.splitlines() == ["=" * 10, "=" * 10, "No text generated for this prompt"]


def test_generate_reads_the_prompt_from_stdin(capsys, parrot, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("hello\nwho are you\n"))
    text = generated(capsys, parrot, "-p", "-", "-m", "1", "--ignore-chat-template")
    count = len(load(parrot)[1].encode("hello\nwho are you\n"))
    assert f"Prompt: {count} tokens" in text


def test_generate_emits_what_the_api_emits(capsys, random_model):
    model, tokenizer = load(random_model)
    messages = [{"role": "system", "content": "who"}, {"role": "user", "content": "hello"}]
    prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True)
    settings = {"temperature": 0.8, "top_p": 0.9, "min_p": 0.01, "top_k": 40, "seed": 3, "max_tokens": 20}
    # ASCII only: the command line leaves control characters out, which random weights like to emit.
    ascii_only = {"logits_processors": [_ascii_letters(tokenizer)]}
    expected = "".join(r.text for r in stream_generate(model, tokenizer, prompt, **settings, **ascii_only))
    bias = [f"--logit-bias={i}=-inf" for i in _not_letters(tokenizer)]
    flags = "-p hello --system-prompt who --temp 0.8 --top-p 0.9 --min-p 0.01 --top-k 40 --seed 3 -m 20".split()
    for mode in ("ar", "diffusion", "auto"):
        shown = generated(capsys, random_model, *flags, *bias, "--mode", mode, "--verbose", "False")
        assert shown == expected + "\n"


def _not_letters(tokenizer) -> list[int]:
    return [i for i in range(320) if not tokenizer.decode([i]).isalpha() or not tokenizer.decode([i]).isascii()]


def _ascii_letters(tokenizer):
    banned = mx.array(_not_letters(tokenizer))
    return lambda tokens, logits: logits.at[:, banned].add(-mx.inf)


def test_generate_stops_at_a_string(capsys, parrot):
    text = generated(capsys, parrot, "-p", "hello", "--stop", "nothing", "--stop", "ohel", "--verbose", "f")
    assert text == "hell\n"


def test_a_model_that_is_no_chat_model_gets_the_prompt_as_it_is(capsys, tmp_path):
    folder = write_checkpoint(tmp_path / "plain", says="hello", template=False)
    assert "Prompt: 1 tokens" in generated(capsys, folder, "-p", "hello", "-m", "1")
    code, told = failure(capsys, "generate", "--model", str(folder), "-p", "x", "--system-prompt", "y")
    assert code == 1 and "--system-prompt needs a chat template" in told


def test_settings_reach_the_chat_template(capsys, random_model):
    count = r"Prompt: (\d+) tokens"
    plain = int(re.search(count, generated(capsys, random_model, "-p", "x", "-m", "1"))[1])
    for flags in (["--no-think"], ["--chat-template-config", '{"enable_thinking": false}']):
        silent = int(re.search(count, generated(capsys, random_model, "-p", "x", "-m", "1", *flags))[1])
        assert silent > plain, "the template adds an empty thought"


def test_control_characters_of_the_model_are_not_printed(capsys, random_model):
    escape = token_id(random_model, "\x1b")
    text = generated(capsys, random_model, "-p", "x", "-m", "5", f"--logit-bias={escape}=1e6", "--verbose", "false")
    assert text == ""


def test_a_biased_token_must_exist(capsys, parrot):
    code, told = failure(capsys, "generate", "--model", str(parrot), "-p", "x", "--logit-bias", "320=1")
    assert code == 1 and "--logit-bias: token 320 is not an id in 0..319" in told


def test_drafts_are_marked_in_a_pipe(capsys, parrot):
    text = generated(capsys, parrot, "-p", "x", "-m", "4", "--mode", "diffusion", "--show-drafts", "--verbose", "f")
    assert text == "«hellohellohello»hello\n"


def test_generate_goes_on_from_a_prompt_that_mlx_lm_cached(capsys, random_model, tmp_path, monkeypatch):
    from mlx_lm import cache_prompt

    file = str(tmp_path / "prompt.safetensors")
    monkeypatch.setattr(
        sys, "argv", ["x", "--model", str(random_model), "--prompt", "hello", "--prompt-cache-file", file]
    )
    cache_prompt.main()
    capsys.readouterr()
    flags = ("-m", "8", "--seed", "1")
    whole = generated(capsys, random_model, "-p", "hello who are you", *flags)
    assert main(["generate", "-p", " who are you", "--prompt-cache-file", file, *flags]) == 0, (
        "the file names the model"
    )
    rest = capsys.readouterr().out
    assert whole.splitlines()[1:2] == rest.splitlines()[1:2]
    counts = [int(re.search(r"Prompt: (\d+)", text)[1]) for text in (whole, rest)]
    cached, _ = KVCache.load(file)
    assert counts[0] == counts[1] + cached.offset
    code, told = failure(capsys, "generate", "--model", "other/model", "-p", "x", "--prompt-cache-file", file)
    assert code == 1 and f"made with model {random_model}, not other/model; leave --model out" in told


def test_libraries_do_not_chatter(environment):
    quiet = {k: v for k, v in environment.items() if not k.startswith("TRANSFORMERS")}
    program = "from orthrus_mlx.cli.main import main; main(['info', '--model', '/none']); import transformers"
    shown = subprocess.run([sys.executable, "-c", program], env=quiet, capture_output=True, text=True, check=True)
    assert shown.stderr == "orthrus-mlx: error: /none: no such folder, and not a Hugging Face id (owner/name)\n"


def test_what_an_output_cannot_encode_is_replaced(parrot, environment):
    arguments = ("-p", "x", "-m", "2", "--mode", "diffusion", "--show-drafts", "--verbose", "False")
    narrow = environment | {"PYTHONIOENCODING": "ascii"}
    shown = run_process("generate", "--model", str(parrot), *arguments, environment=narrow)
    assert (shown.returncode, shown.stdout, shown.stderr) == (0, "?hello?hello\n", "")


def test_xtc_spares_line_breaks_and_the_end_of_the_text(random_model):
    _, tokenizer = load(random_model)
    parser = argparse.ArgumentParser()
    add_generation_arguments(parser, max_tokens=1)
    options = generation_options(parser.parse_args([]), tokenizer, 320, default_mode="ar")
    assert set(options["xtc_special_tokens"]) == {token_id(random_model, "\n"), token_id(random_model, "<|im_end|>")}


# info -------------------------------------------------------------------------------------------------


def info(capsys: pytest.CaptureFixture[str], folder: Path) -> dict[str, str]:
    """The rows that `info` prints for a model, by label."""
    assert main(["info", "--model", str(folder)]) == 0
    rows = re.findall(r"^  (\S.*?)  +(\S.*)$", capsys.readouterr().out, re.MULTILINE)
    return dict(rows)


def test_info_shows_versions_device_model_files_and_the_probe(capsys, random_model):
    rows = info(capsys, random_model)
    assert rows["orthrus-mlx"] == __version__
    assert rows["mlx wheel"].startswith("mlx-") and rows["Metal"] in ("available", "not available")
    assert rows["layers"] == "2" and rows["heads"] == "4, key/value 2, head size 16"
    assert rows["context"] == "4096 tokens" and rows["block size"] == "8"
    assert rows["layout"].startswith("side-car") and rows["backbone"] == rows["diffusion"] == "not quantised"
    assert rows["orthrus_diff.safetensors"].endswith("kB")
    assert rows["kernels"] == "off by request"
    assert rows["target passes"] == "row-exact" and "equal bits" in rows["evidence"]


def test_info_counts_the_bytes_that_the_cache_really_takes(capsys, random_model):
    model, _ = load(random_model)
    cache = KVCache(len(model.layers))
    model.model(mx.zeros((1, 256), mx.int32), cache)
    assert info(capsys, random_model)["KV cache"].startswith(f"{cache.nbytes // 256} bytes per token")


def test_info_of_a_plain_qwen3(capsys, tmp_path):
    rows = info(capsys, write_checkpoint(tmp_path / "plain", block_size=None))
    assert rows["layout"] == "plain Qwen3" and rows["block size"] == "none: autoregressive view only"
    assert "diffusion" not in rows


def test_convert_and_info_of_a_quantised_model(capsys, random_model, tmp_path):
    target = tmp_path / "quantised"
    flags = "-q --q-group-size 32 --diff-q-bits 8 --diff-q-group-size 32".split()
    assert main(["convert", "--hf-path", str(random_model), "--mlx-path", str(target), *flags]) == 0
    capsys.readouterr()
    rows = info(capsys, target)
    assert rows["backbone"] == "affine, 4 bits, groups of 32 (13 of 15 matrices)", "the down projections are too narrow"
    assert rows["diffusion"] == "affine, 8 bits, groups of 32 (8 of 8 matrices)"


def test_info_without_a_model_still_tells_about_the_machine(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(start, "demo_folder", lambda: tmp_path / "none")
    assert main(["info"]) == 1
    captured = capsys.readouterr()
    assert "default device" in captured.out and "the demo model is not there" in captured.err
