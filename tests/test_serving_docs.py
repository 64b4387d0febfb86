"""docs/serving.md says what is true: its snippets run as they stand, and its tables name what there is."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from orthrus_mlx.serving.openai_bodies import ChatBody, CompletionBody

pytest_plugins = ["serving_fixtures"]

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
ADDRESS = "http://127.0.0.1:8080"


def test_the_clients_snippets_run_as_they_stand(demo, capsys):
    snippets = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(snippets) == 2
    for snippet in snippets:
        exec(snippet.replace(ADDRESS, demo.url), {})
    told = capsys.readouterr().out
    assert '"name": "Anna"' in told and "'accepted': " in told and len(told) > 200


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
def test_the_curl_line_runs_as_it_stands(demo):
    (line,) = re.findall(r"^    (curl .*?)\n\n", PAGE, re.DOTALL | re.MULTILINE)
    told = subprocess.run(
        ["bash", "-c", line.replace(ADDRESS, demo.url)], capture_output=True, text=True, timeout=60, check=True
    ).stdout
    assert told.rstrip().endswith("data: [DONE]")


def test_every_parameter_is_documented():
    named = set(re.findall(r"`(\w+)", PAGE))
    suffixed = {f"{p}_context_size" for p in ("repetition_penalty", "presence_penalty", "frequency_penalty")}
    structural = {"messages", "prompt", "model", "echo", "best_of", "store"}
    fields = {*ChatBody.model_fields, *CompletionBody.model_fields} - structural
    fields = {f.replace("_context_size", "_penalty_context_size") for f in fields} - suffixed
    assert fields <= named, sorted(fields - named)


def test_every_route_and_flag_is_documented(thinking, capsys):
    from orthrus_mlx.cli.main import main

    for path in thinking.client.get("/openapi.json").json()["paths"]:
        assert path.replace("{name}", "NAME").removeprefix("/v1/messages") in PAGE, path
    with pytest.raises(SystemExit):
        main(["serve", "--help"])
    flags = set(re.findall(r"--[a-z][a-z-]+", capsys.readouterr().out)) - {
        "--help",
        "--verbose",
        "--model",
        "--revision",
    }
    commands = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    section = commands.split("\n## serve\n")[1].split("\n## ")[0]
    assert flags == set(re.findall(r"--[a-z][a-z-]+", section))


def test_every_metric_is_there(thinking):
    thinking.chat(max_tokens=2)
    told = thinking.client.get("/metrics").text
    for name in re.findall(r"`(orthrus_\w+)", PAGE):
        assert name in told, name


def test_the_response_formats_shown_are_accepted(thinking):
    shown = re.findall(r'^ +"response_format": (\{.*\})$', PAGE, re.MULTILINE)
    assert len(shown) == 3
    for form in shown:
        wanted = json.loads(form.replace("{..}", '{"type": "boolean"}'))
        options = {"max_tokens": 3, "chat_template_kwargs": {"enable_thinking": False}}
        assert thinking.chat(response_format=wanted, **options).status_code == 200, form
