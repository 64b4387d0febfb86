"""What an installed wheel must do away from the repository: chat, convert, load, kernel text."""

import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import orthrus_mlx
from orthrus_mlx import demo_folder, load_model_and_tokenizer, mlx_generate

package = Path(orthrus_mlx.__file__).parent
assert "site-packages" in str(package), f"not the installed package: {package}"
assert [f for f in files("orthrus_mlx.metal").iterdir() if f.name.endswith(".metal")], "kernel text is missing"

assert (files("orthrus_mlx.serving") / "page.html").is_file(), "the server's page is missing"

model, tokenizer = load_model_and_tokenizer(demo_folder())
prompt_tokens = tokenizer.encode("If a rectangle has length 12 and width 7, what is its area?")
tokens = list(mlx_generate(model, prompt_tokens, tokenizer.eos_token_id, max_tokens=128))
assert "84" in tokenizer.decode(tokens), tokenizer.decode(tokens)

command = [str(Path(sys.executable).parent / "orthrus-mlx")]
question = "If a rectangle has length 12 and width 7, what is its area?\n"
chat = subprocess.run([*command, "chat"], input=question, text=True, capture_output=True, check=True)
assert "84" in chat.stdout, chat.stdout + chat.stderr

# One short answer per mode: the prompts are in the wheel, and mlx-lm loads the demo.
few = ["--workloads", "json", "--formats", "chat", "--num-prompts", "1", "-n", "1", "-m", "8", "--output", "bench"]
bench = subprocess.run([*command, "bench", *few], text=True, capture_output=True, check=True)
assert "pass  2 answers of other modes" in bench.stdout, bench.stdout + bench.stderr
assert Path("bench/speedup.png").stat().st_size > 1000

# Without its extra the server says how to get it.
serve = subprocess.run([*command, "serve", "--port", "0"], text=True, capture_output=True)
assert serve.returncode == 1 and "pip install 'orthrus-mlx[serve]'" in serve.stderr, serve.stdout + serve.stderr

subprocess.run(
    [*command, "convert", "--hf-path", str(demo_folder()), "--mlx-path", "converted", "--dtype", "float16"],
    check=True,
    capture_output=True,
)
subprocess.run([sys.executable, "-m", "orthrus_mlx.convert", "--help"], check=True, capture_output=True)
model, tokenizer = load_model_and_tokenizer("converted")
assert "84" in tokenizer.decode(list(mlx_generate(model, prompt_tokens, tokenizer.eos_token_id, max_tokens=128)))
print("wheel smoke run passed")
