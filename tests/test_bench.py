"""`orthrus-mlx bench`: what it measures, keeps, refuses and reports. Speeds themselves are not asserted."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import mlx.core as mx
import pytest
import tiny
from cli_models import write_checkpoint

from orthrus_mlx import load
from orthrus_mlx.bench import lanes, runner
from orthrus_mlx.bench.cases import context_cases, formats_of, long_case, workload_cases
from orthrus_mlx.bench.lanes import MODES, Models, answer, first_difference, load_reference
from orthrus_mlx.bench.plots import draw_plots
from orthrus_mlx.bench.prompts import SETS, read_prompts, workloads_of
from orthrus_mlx.bench.report import as_markdown, as_text, sections
from orthrus_mlx.bench.results import Measured, Results, Round
from orthrus_mlx.bench.runner import order
from orthrus_mlx.bench.summary import summarise, verdicts
from orthrus_mlx.cli.main import COMMANDS, main
from orthrus_mlx.decoding.stats import DecodeStats

pytest_plugins = ["cli_fixtures"]

PNG = b"\x89PNG\r\n\x1a\n"
SMALL = ["--num-prompts", "1", "-n", "2", "-m", "6", "--workloads", "code", "--formats", "raw", "chat"]


def bench(folder: Path, *arguments: str) -> int:
    return main(["bench", "--model", str(folder), *arguments])


def failure(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """(exit code, last line of stderr) of a benchmark that fails."""
    try:
        code = main(["bench", *arguments])
    except SystemExit as exit:
        code = exit.code
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.startswith("orthrus-mlx: error: "), told
    return code, told


# The command --------------------------------------------------------------------------------------------


def test_bench_measures_every_mode_and_writes_results_report_and_plots(capsys, random_model, tmp_path):
    flags = ["--output", str(tmp_path), "--block-sizes", "2", "--context", "400", "--long", "9"]
    assert bench(random_model, *SMALL, *flags) == 0
    shown, told = capsys.readouterr()
    assert told.startswith("0/28 answers; now code, raw\n5/28 answers; now code, chat\n")
    value = json.loads((tmp_path / "results.json").read_text())
    rounds = Counter((r["case"], tuple(sorted(r["lanes"]))) for r in value["rounds"])
    modes = tuple(sorted(MODES))
    workload = tuple(sorted([*MODES, "block 2"]))
    assert rounds == {
        ("code, raw", workload): 2,
        ("code, chat", workload): 2,
        ("context 400", modes): 1,
        ("long output, chat", modes): 1,
    }
    assert {r["prompt_tokens"] for r in value["rounds"] if r["case"] == "context 400"} == {400}
    longest = [m["tokens"] for r in value["rounds"] if r["kind"] == "long" for m in r["lanes"].values()]
    assert longest == [9] * len(MODES)
    report = (tmp_path / "report.md").read_text()
    for text in (shown, report):
        assert all(label in text for label in ("device: ", "mlx-lm: ", "exactness: ", "load average: ", "float32"))
        assert "pass  16 answers of other modes, token by token against ar" in text
        assert "of 3 fixed settings, to be at least 0.95" in text and "of ar, to be at least 0.97" in text
    for name in ("speedup.png", "context.png"):
        assert (tmp_path / name).read_bytes().startswith(PNG) and f"({name})" in report


def test_a_run_that_was_broken_off_goes_on_where_it_stopped(capsys, parrot, tmp_path, monkeypatch):
    flags = [*SMALL, "--modes", "ar", "auto", "--output", str(tmp_path)]
    asked: list[str] = []

    def counted(models, lane, item, *, until_eos):
        asked.append(lane)
        if len(asked) == 2 + 3:
            raise KeyboardInterrupt
        return answer(models, lane, item, until_eos=until_eos)

    monkeypatch.setattr(runner, "answer", counted)
    assert bench(parrot, *flags) == 130
    assert f"the same command goes on from {tmp_path}" in capsys.readouterr().err
    before = json.loads((tmp_path / "results.json").read_text())["rounds"]
    assert len(before) == 1, "two warm-ups, one whole round, one answer of the next"

    asked[:] = ["already interrupted"] * 10
    assert bench(parrot, *flags) == 0
    assert "1 round measured before, 3 to go" in capsys.readouterr().err
    assert len(asked) - 10 == 2 + 3 * 2, "two warm-ups and three rounds of two"
    after = json.loads((tmp_path / "results.json").read_text())["rounds"]
    assert after[:1] == before and len({(r["case"], r["item"], r["trial"]) for r in after}) == 4

    assert bench(parrot, *flags) == 0
    assert len(asked) - 10 == 8, "nothing was left to measure"


def test_results_of_other_settings_or_another_model_are_not_mixed(capsys, parrot, random_model, tmp_path):
    flags = [*SMALL, "--formats", "raw", "-n", "1", "--modes", "ar", "--output", str(tmp_path)]
    assert bench(parrot, *flags) == 0
    kept = (tmp_path / "results.json").read_bytes()
    capsys.readouterr()
    for changed, name in (([*flags, "-m", "7"], "another max-tokens (6, now 7)"), (flags, "another model (")):
        model = parrot if changed is not flags else random_model
        code, told = failure(capsys, "--model", str(model), *changed)
        assert code == 1 and name in told and "choose another --output" in told
    assert (tmp_path / "results.json").read_bytes() == kept
    (tmp_path / "results.json").write_text("{}")
    code, told = failure(capsys, "--model", str(parrot), *flags)
    assert code == 1 and "not the results of a benchmark" in told


def test_no_speed_up_without_its_baseline_in_the_same_run(capsys, parrot, tmp_path):
    (tmp_path / "speedup.png").write_bytes(b"of an earlier run")
    assert bench(parrot, *SMALL, "--modes", "auto", "--output", str(tmp_path)) == 0
    shown = capsys.readouterr().out
    assert all(f"no speed-up over {b}: this run did not measure it" in shown for b in ("ar", "mlx_lm"))
    assert "not judged  same tokens as ar" in shown and "x of" not in shown
    assert not (tmp_path / "speedup.png").exists()
    (case, *_) = summarise_file(tmp_path)
    assert case.lanes["auto"].speedup == {} == case.lanes["auto"].speedup_with_prompt and not case.against


def summarise_file(folder: Path):
    rounds = json.loads((folder / "results.json").read_text())["rounds"]
    whole = [Round(**{**r, "lanes": {k: Measured(**m) for k, m in r["lanes"].items()}}) for r in rounds]
    return summarise(Results({}, {}, None, whole))


def test_an_answer_that_differs_from_ar_fails_the_run_and_is_named(capsys, parrot, tmp_path, monkeypatch):
    stream = lanes._stream

    def wrong(models, lane, item, stats, options):
        tokens = list(stream(models, lane, item, stats, options))
        return iter([*tokens[:4], tokens[4] + 1, *tokens[5:]] if lane == "auto" else tokens)

    monkeypatch.setattr(lanes, "_stream", wrong)
    flags = [*SMALL, "--modes", "ar", "auto", "--formats", "raw", "--output", str(tmp_path)]
    assert bench(parrot, *flags) == 1
    captured = capsys.readouterr()
    error = captured.err.splitlines()[-1]
    assert "not lossless: 2 answers differ from ar, first code-1 (code, raw, auto, trial 1) at token 4" in error
    for text in (captured.out, (tmp_path / "report.md").read_text()):
        assert "FAIL  2 answers of other modes" in text and "FAIL  code-1 (code, raw, auto, trial 2)" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--workloads", "poetry"], "--workloads 'poetry' is not available here; choose from code, prose"),
        (["--prompts", "/no/such/file"], "--prompts /no/such/file: neither general nor demo nor a readable text file"),
    ],
)
def test_unknown_names_are_one_line_that_lists_the_known_ones(capsys, arguments, message):
    code, told = failure(capsys, *arguments)
    assert code == 1 and message in told


def test_wrong_numbers_are_wrong_usage(capsys):
    code, told = failure(capsys, "--block-sizes", "33")
    assert code == 2 and "--block-sizes: expected an integer in 2..32, not '33'" in told


def test_a_model_offers_what_it_has(capsys, tmp_path):
    folder = write_checkpoint(tmp_path / "plain", block_size=None, template=False)
    for flags, message in (
        (["--formats", "think"], "--formats 'think' is not available here; choose from raw"),
        (["--modes", "turbo"], "--modes 'turbo' is not available here; choose from mlx_lm, ar"),
        (["--modes", "auto"], "--modes 'auto' is not available here; choose from mlx_lm, ar"),
        (["--block-sizes"], "--block-sizes: this model has no diffusion view"),
    ):
        code, told = failure(capsys, "--model", str(folder), *flags)
        assert code == 1 and message in told
    assert bench(folder, "--num-prompts", "1", "-n", "1", "-m", "2", "--workloads", "json") == 0
    assert "json, raw" in capsys.readouterr().out


def test_bench_is_a_command():
    assert "bench" in COMMANDS


# Prompts and cases ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SETS)
def test_the_prompt_sets_have_eight_prompts_per_workload(name):
    prompts, _ = read_prompts(name)
    assert {"code", "prose", "json", "reasoning"} <= set(workloads_of(prompts))
    for workload in workloads_of(prompts):
        ours = [p for p in prompts if p.workload == workload]
        assert len(ours) >= 8 and len({p.messages[-1]["content"] for p in ours}) == len(ours)
        assert workload == "dialogue" or all(p.raw for p in ours)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no prompt in it"),
        ("{", "line 1: not valid JSON"),
        ('{"workload": "a", "id": "b", "messages": []}', "line 1: expected"),
        ('{"workload": "", "id": "b", "messages": [{"role": "user", "content": "c"}]}', "must be texts"),
        ('{"workload": "a", "id": "b", "messages": [{"role": "user", "content": "c"}]}\n' * 2, "'b' appears twice"),
    ],
)
def test_a_bad_prompt_file_is_refused_by_line(capsys, tmp_path, text, message):
    file = tmp_path / "prompts.jsonl"
    file.write_text(text)
    code, told = failure(capsys, "--prompts", str(file))
    assert code == 1 and message in told


def test_a_prompt_file_of_ones_own_is_measured(capsys, parrot, tmp_path):
    question = {"workload": "limericks", "id": "cat", "messages": [{"role": "user", "content": "Of a cat?"}]}
    file = tmp_path / "prompts.jsonl"
    file.write_text(json.dumps(question) + "\n\n")
    assert bench(parrot, "--prompts", str(file), "-m", "2", "-n", "1", "--modes", "ar", "auto") == 0
    shown = capsys.readouterr().out
    assert "limericks, chat" in shown and "limericks, think" in shown and "limericks, raw" not in shown


def test_thinking_is_a_format_where_the_template_can_switch_it(random_model, tmp_path):
    _, thinking = load(random_model)
    assert formats_of(thinking) == ["raw", "chat", "think"]
    assert formats_of(tiny.text_tokenizer()) == ["raw", "chat"]
    _, plain = load(write_checkpoint(tmp_path / "plain", template=False))
    assert formats_of(plain) == ["raw"]

    prompts, _ = read_prompts("general")
    options = {"count": 1, "trials": 1, "max_tokens": 8, "context_length": 4096}
    cases = workload_cases(thinking, prompts, ["chat", "think"], **options)
    chat, think = (thinking.decode(list(case.items[0].tokens)) for case in cases[:2])
    assert chat.removesuffix("<think>\n\n</think>\n\n") == think.rstrip(" ") != chat


def test_a_context_below_every_prompt_is_refused(capsys, random_model):
    code, told = failure(capsys, "--model", str(random_model), "--context", "16")
    assert code == 1 and "--context 16: every prompt alone is longer than that" in told


def test_context_prompts_have_their_length_and_leave_room_for_the_answer(random_model):
    _, tokenizer = load(random_model)
    prompts, _ = read_prompts("demo")
    cases = context_cases(tokenizer, prompts, "chat", [400, 900, 5000, 6000], max_tokens=16, context_length=2048)
    assert [case.context for case in cases] == [400, 900, 2032]
    for case in cases:
        assert case.items and {len(item.tokens) for item in case.items} == {case.context}
        assert {item.max_tokens for item in case.items} == {16}
    (case,) = long_case(tokenizer, prompts, "chat", length=4096, context_length=2048)
    assert all(len(item.tokens) + item.max_tokens == 2048 for item in case.items) and not case.until_eos


# Lanes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["side-car", "both views in one file"])
def test_the_mlx_lm_lane_runs_the_same_autoregressive_weights(tmp_path, layout):
    settings = tiny.text_config()
    drawn = tiny.weights(settings)
    write = tiny.write_side_car if layout == "side-car" else tiny.write_checkpoint
    folder = write(tmp_path / "model", settings, drawn)
    model, tokenizer = load(folder)
    reference = load_reference(folder)
    ids = mx.array([tiny.prompt(3, 20)])
    assert mx.array_equal(reference(ids), model(ids))

    (item,) = context_cases(tokenizer, read_prompts("general")[0][:1], "raw", [200], max_tokens=9, context_length=999)[
        0
    ].items
    models = Models(model, tokenizer, reference)
    runs = {lane: answer(models, lane, item, until_eos=False) for lane in (*MODES, "block 2")}
    assert {tuple(run.tokens) for run in runs.values()} == {tuple(runs["ar"].tokens)}
    for lane, run in runs.items():
        assert len(run.tokens) == 9 and 0 < run.prompt_seconds < run.first_token_seconds <= run.seconds, lane
        assert (run.stats is None) == (lane == "mlx_lm")
    assert set(runs["block 2"].stats["target_rows"]) <= {"1", "2"}


def test_the_tokenizer_keeps_its_stop_tokens_after_an_answer_without_end(parrot):
    model, tokenizer = load(parrot)
    before = set(tokenizer.eos_token_ids)
    (item,) = long_case(tokenizer, read_prompts("general")[0][:1], "raw", length=3, context_length=999)[0].items
    answer(Models(model, tokenizer), "ar", item, until_eos=False)
    assert before and set(tokenizer.eos_token_ids) == before


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7])
def test_every_lane_runs_equally_often_at_every_place(count):
    names = [f"lane {i}" for i in range(count)]
    rounds = [order(names, i) for i in range(2 * count)]
    assert all(sorted(r) == names for r in rounds)
    assert Counter((place, lane) for r in rounds for place, lane in enumerate(r)) == {
        (place, lane): 2 for place in range(count) for lane in names
    }


@pytest.mark.parametrize(
    ("tokens", "reference", "place"),
    [([1, 2], [1, 2], None), ([1, 3], [1, 2], 1), ([1], [1, 2], 1), ([1, 2, 3], [1, 2], 2), ([], [], None)],
)
def test_the_first_difference_counts_a_shorter_answer(tokens, reference, place):
    assert first_difference(tokens, reference) == place


# Figures --------------------------------------------------------------------------------------------------


def measured(tokens_per_second: float, **stats) -> Measured:
    """An answer of 100 tokens behind a prompt that took a second."""
    prompt_seconds = 1.0
    seconds = prompt_seconds + 100 / tokens_per_second
    return Measured(100, prompt_seconds, prompt_seconds + 0.01, seconds, 0, True, None, stats or None)


def results(*rounds: dict[str, Measured], kind: str = "workload") -> Results:
    made = [Round("code, chat", kind, f"code-{i}", 0, 10, 0.5, lanes, 512) for i, lanes in enumerate(rounds)]
    return Results({}, {"device": "cpu"}, None, made)


def test_a_speed_up_is_the_median_of_ratios_within_rounds():
    fast_prompt = {"ar": measured(100), "auto": measured(200), "mlx_lm": measured(50)}
    slow_prompt = {"ar": measured(10), "auto": measured(30), "mlx_lm": measured(10)}
    alone = {"auto": measured(999)}
    (case,) = summarise(results(fast_prompt, slow_prompt, alone))
    auto = case.lanes["auto"]
    quartiles = {baseline: (s.low, s.median, s.high) for baseline, s in auto.speedup.items()}
    assert quartiles == {"ar": pytest.approx((2.25, 2.5, 2.75)), "mlx_lm": pytest.approx((3.25, 3.5, 3.75))}
    assert auto.speedup_with_prompt["ar"].median == pytest.approx(((2 / 1.5) + (11 / (1 + 100 / 30))) / 2)
    assert auto.speed.median == pytest.approx(200) and auto.answers == 3
    assert "auto" not in case.lanes["auto"].speedup and "ar" not in case.lanes["ar"].speedup


def test_a_token_that_came_with_the_prompt_does_not_count_as_decoded():
    stats = asdict(DecodeStats(given=1))
    with_prompt = measured(100, **stats)
    assert with_prompt.tokens_per_second == pytest.approx(99) and measured(100).tokens_per_second == pytest.approx(100)
    only = Measured(1, 1.0, 1.01, 1.01, 0, True, None, stats)
    (case,) = summarise(results({"ar": only, "auto": only}, {"ar": with_prompt, "auto": measured(198, **stats)}))
    assert case.lanes["auto"].speed.count == 1 and case.against["ar"].median == pytest.approx(1.98)
    (nothing,) = summarise(results({"ar": only, "auto": only}))
    assert nothing.lanes["auto"].speed.median == 0 and not nothing.lanes["auto"].speedup


@pytest.mark.parametrize(
    ("auto", "of_ar", "of_best"),
    [(100, True, False), (96, False, False), (114.1, True, True), (113, True, False), (200, True, True)],
)
def test_auto_is_judged_against_ar_and_the_best_fixed_setting(auto, of_ar, of_best):
    lanes = {"ar": 100, "block 4": 120, "diffusion": 90, "mlx_lm": 500, "auto": auto}
    (case,) = summarise(results({lane: measured(speed) for lane, speed in lanes.items()}))
    against_ar, against_best = verdicts([case])
    assert (against_ar.passed, against_best.passed) == (of_ar, of_best)
    assert f"auto is {auto / 100:.3f}x" in against_ar.text
    assert "of block 4, the best of 3 fixed settings" in against_best.text


def test_counts_of_several_answers_are_added_up():
    one = {"tokens": 10, "cycles": 2, "ar_passes": 2, "diffusion_passes": 2, "drafted": 14, "accepted": 8}
    one |= {"seconds": 0.5, "plain_seconds": 2.0, "predicted_seconds": 0.4, "predicted_plain_seconds": 1.2}
    rows = {"target_rows": {"8": 2}, "draft_rows": {"16": 2}}
    first = measured(1, **one, **rows, drafted_at=[2, 2], accepted_at=[2, 1], steps={"chain": 2})
    rows = {"target_rows": {"1": 1, "8": 1}, "draft_rows": {}}
    second = measured(1, **one, **rows, drafted_at=[3], accepted_at=[0], steps={"ar": 1, "ngram": 1})
    (case,) = summarise(results({"auto": first}, {"auto": second}))
    counts = case.lanes["auto"].counts
    assert (counts.tokens_per_cycle, counts.tokens_per_forward, counts.accepted, counts.drafted) == (5, 2.5, 16, 28)
    assert (counts.drafted_at, counts.accepted_at) == ([5, 2], [2, 1])
    assert counts.target_rows == {"8": 3, "1": 1} and counts.draft_rows == {"16": 2}
    assert counts.steps == {"chain": 2, "ar": 1, "ngram": 1}
    assert counts.gains == pytest.approx((3.0, 4.0))
    text = as_text(sections(results({"auto": first}, {"auto": second})))
    assert "16/28 (57%)" in text and "chain x2, ar x1, ngram x1" in text and "8 x3, 1 x1" in text and "16 x2" in text
    assert "3.00x" in text and "4.00x" in text


def test_acceptance_is_drawn_where_it_was_measured(tmp_path):
    names = ("tokens", "cycles", "ar_passes", "diffusion_passes", "drafted", "accepted", "seconds")
    counts = dict.fromkeys((*names, "plain_seconds", "predicted_seconds", "predicted_plain_seconds"), 1)
    maps = {"steps": {}, "target_rows": {}, "draft_rows": {}}
    run = measured(1, **counts, **maps, drafted_at=[9, 9], accepted_at=[3, 0])
    found = results({"ar": measured(1), "diffusion": run})
    assert draw_plots(found, tmp_path) == ["speedup.png", "acceptance.png"]
    assert (tmp_path / "acceptance.png").read_bytes().startswith(PNG)
    report = as_markdown(sections(found), "orthrus-mlx bench", ["speedup.png"])
    assert (
        report.startswith("# Benchmark\n\n    orthrus-mlx bench\n") and "![Speed-up by workload](speedup.png)" in report
    )
    assert draw_plots(results({"ar": measured(1)}), tmp_path) == []
    assert list(tmp_path.iterdir()) == [], "plots of the earlier run are gone"
