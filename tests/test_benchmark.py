"""scripts/benchmark: what is compared is the same work, and what is said follows from what was measured."""

import itertools
import json
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from finetune import load_recipe
from finetune.cli import main
from finetune.core.registry import TASKS
from finetune.data import load_splits
from finetune.runner.sets import reading_of
from finetune.study.preflight import split_seed
from scripts._benchmark import __main__ as command
from scripts._benchmark import choosing, contest, jobs, ours, page, table
from scripts._benchmark.contest import Workshop, peer_spec, wilson
from scripts._benchmark.corpus import Corpus, NoData, read_rows, write_rows
from scripts._benchmark.measure import Failed, run_fresh
from scripts._benchmark.programs.answers import ratio_estimate
from scripts._benchmark.record import OtherBenchmark, Record, code_digest

EVERY = [case for size in jobs.SIZES.values() for case in jobs.cases(size, gpu=True)]
AT_WORK = [case for case in EVERY if case.name != "finetune --help"]


def names(cases):
    return [f"{case.job}-{case.name}-{case.examples}" for case in cases]


@pytest.fixture
def data(tmp_path):
    """A folder like the one with the public data: RTE with and without a header line, and GSM8K."""
    folder = tmp_path / "data"
    pairs = [f"{n}\tSentence {n} says this.\tIt says {n}.\t{label_of(n)}" for n in range(70)]
    header = "index\tsentence1\tsentence2\tlabel"
    questions = [{"question": f"How much is {n} and one?", "answer": f"{n + 1}", "more": 1} for n in range(40)]
    for name, lines in {
        "rte/train.tsv": [header, *pairs, pairs[0]],
        "rte/val.tsv": [pair.replace("Sentence", "Phrase") for pair in pairs],
        "gsm8k/train.jsonl": map(json.dumps, questions[:20]),
        "gsm8k/test.jsonl": map(json.dumps, questions[20:]),
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def label_of(number):
    return "entailment" if number % 2 else "not_entailment"


def case(**changes):
    return jobs.Case(**{"job": "a", "name": "tuning", "figure": "tokens_per_second", "ours": jobs.OURS, **changes})


def row(contestant, number=0, failed=None, **changes):
    measured = {
        "case": "tuning",
        "contestant": contestant,
        "round": number,
        "failed": failed,
        "figures": {"tokens_per_second": 100.0, "seconds": 10.0, "seconds_after_start": 8.0},
        "peak_memory_bytes": 500,
        "device_memory_bytes": None,
        "score": {"name": "accuracy", "value": 0.6, "low": 0.5, "high": 0.7},
        "facts": {},
    }
    return {**measured, **changes}


def record(tmp_path, *rows):
    made = Record.open(tmp_path / "benchmark.json", {"size": "quick"})
    for each in rows:
        made.add(each)
    return made


# --- the command line


def test_everything_is_measured_unless_something_is_asked_for():
    args = command.parse([])
    assert (args.jobs, args.size, args.rounds, args.fresh) == (["a", "b", "c", "d", "e", "f"], "standard", None, False)
    assert jobs.SIZES["standard"].rounds >= 3 and jobs.SIZES["long"].rounds >= 3
    args = command.parse(["--quick", "--jobs", "e,a", "--rounds", "4", "--output", "x.json"])
    assert (args.jobs, args.size, args.rounds, args.output) == (["a", "e"], "quick", 4, Path("x.json"))


@pytest.mark.parametrize("arguments", [["--jobs", "a,z"], ["--rounds", "0"], ["--rounds", "x"], ["--size", "huge"]])
def test_what_cannot_be_meant_is_refused(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        command.parse(arguments)
    assert stopped.value.code == 2
    assert arguments[0] in capsys.readouterr().err


def test_missing_data_are_named_before_anything_runs(tmp_path, capsys):
    (tmp_path / "rte").mkdir()
    (tmp_path / "rte" / "train.tsv").touch()
    assert command.main(["--data", str(tmp_path), "--output", str(tmp_path / "b.json")]) == 2
    said = capsys.readouterr().err
    assert "rte/val.tsv" in said and "gsm8k/test.jsonl" in said and "--data" in said
    assert "has no rte/train.tsv" not in said
    assert not (tmp_path / "b.json").exists()


# --- the same work for everybody


@pytest.mark.parametrize("each", AT_WORK, ids=names(AT_WORK))
def test_our_recipe_is_valid_and_asks_for_what_the_peers_are_told(each, tmp_path, data, capsys):
    recipe = ours.recipe(each, [3], tmp_path, tmp_path / "train.jsonl", tmp_path / "held_out.jsonl")
    path = ours.write_recipe(tmp_path, recipe)
    overrides = [f"{name}={value}" for name, value in each.ours.settings.items()]
    assert main(["check", str(path), *overrides, "--recipe-only"]) == 0, capsys.readouterr()
    train, task = recipe["train"], recipe["task"]
    for peer in each.peers:
        spec = peer_spec(each, peer, 3, tmp_path, tmp_path / "train.jsonl", tmp_path / "held_out.jsonl", tmp_path)
        if each.strategy not in ("linear", "setfit"):  # which are solved, or count pairs in their own ways
            assert (spec["epochs"], spec["learning_rate"]) == (train["epochs"], train["learning_rate"])
            assert (spec["warmup"], spec["weight_decay"]) == (train["warmup"], train["weight_decay"])
            assert spec["batch"] == train["batch_size"]
        assert spec["max_length"] == task["max_length"]
        assert (spec["train"], spec["model"]) == (recipe["data"]["train"]["path"], recipe["model"]["source"])
        assert spec["held_out"] == recipe["data"]["test"]["path"]
        assert [spec["seed"]] == recipe["seeds"]


def test_few_shot_peers_are_given_what_our_run_draws(tmp_path):
    pool = [{"text": f"Text {n} of {label}.", "label": label} for n in range(12) for label in ("sport", "tech")]
    each = case(job="f", strategy="setfit", examples=8, held_out=4)
    train = write_rows(tmp_path / "train.jsonl", pool)
    held_out = write_rows(tmp_path / "held_out.jsonl", [{"text": "Another.", "label": "sport"}])
    path = ours.write_recipe(tmp_path, ours.recipe(each, [0, 1], tmp_path, train, held_out))
    drawn = {seed: ours.drawn(path, seed) for seed in (0, 1)}
    assert drawn[0] != drawn[1] and drawn[0] == ours.drawn(path, 0)
    for seed, rows in drawn.items():
        assert sorted(row["label"] for row in rows) == ["sport"] * 4 + ["tech"] * 4
        recipe = load_recipe(path)
        variant = recipe.variants[0]
        options = variant.recipe
        task = TASKS.get(options.task.type)(options.task)
        splits = load_splits(options.data, {}, split_seed(recipe, variant, seed), reading_of(task))
        assert splits.train.select_columns(["text", "label"]).to_list() == rows


def test_the_pool_of_few_shot_examples_is_balanced_and_apart_from_what_is_held_out(data):
    corpus = Corpus(data)
    pool, held_out = corpus.bbc("train", 40), corpus.bbc("test", 60)
    assert Counter(row["label"] for row in pool).most_common()[-1][1] == len(pool) / jobs.TOPICS
    assert len(held_out) == 60 and not {row["text"] for row in pool} & {row["text"] for row in held_out}


def test_a_packed_step_learns_from_about_as_many_tokens_as_anybody_elses():
    for rows in jobs.TRL_ROWS.values():
        count = rows["per_device_train_batch_size"] * rows.get("gradient_accumulation_steps", 1)
        assert abs(count * jobs.CHAT_MAX_LENGTH / (jobs.CHAT_BATCH * 200) - 1) < 0.3


def test_names_tell_cases_and_contestants_apart():
    for gpu in (False, True):
        cases = jobs.cases(jobs.SIZES["standard"], gpu)
        assert len({each.name for each in cases}) == len(cases)
        assert all(len({one.name for one in each.contestants}) == len(each.contestants) for each in cases)


def test_the_targets_are_those_that_were_set():
    cases = {each.name: each for each in jobs.cases(jobs.SIZES["standard"], gpu=False)}
    targets = {name: [peer.target for peer in each.peers] for name, each in cases.items()}
    assert targets["full tuning"] == [5, 1.5]
    assert targets["chat LoRA"] == [4, 3]
    assert [targets[f"{name}, 5 seeds"] for name in jobs.STRATEGIES] == [[60, 18], [8, 2.5], [6, 2], [5, 1.5]]
    assert targets["scoring"] == [4, 1.5, 4, 1.5]
    assert [cases[name].limit for name in ("finetune --help", "finetune check, first time")] == [0.3, 1.0]
    on_gpu = {each.name: each for each in jobs.cases(jobs.SIZES["standard"], gpu=True)}
    assert [peer.target for peer in on_gpu["chat LoRA"].peers] == [None, 1.5]
    assert [on_gpu[f"lora, {count} replicas"].peers[0].target for count in (5, 16)] == [4, 8]
    assert not any("replicas" in name for name in cases)


def test_examples_are_drawn_alike_each_time_without_repetition(data):
    corpus = Corpus(data)
    rows = corpus.rte("train", 70)
    assert rows == corpus.rte("train", 70)
    assert len({each["sentence1"] for each in rows}) == 70
    assert {each["label"] for each in rows} == {"entailment", "not_entailment"}
    assert corpus.rte("train", 10) == rows[:10]
    assert len(corpus.rte("val", 70)) == 70, "the first line of a file without a header is an example"
    assert set(corpus.gsm8k("test", 3)[0]) == {"question", "answer"}
    with pytest.raises(NoData, match="71 examples are wanted, and there are 70"):
        corpus.rte("train", 71)


def test_rows_come_back_as_they_were_written(tmp_path):
    rows = [{"question": "one\u2028two\x85three", "answer": "ä\nb"}]
    assert read_rows(write_rows(tmp_path / "new" / "rows.jsonl", rows)) == rows


def test_nobody_is_always_first():
    [tuning, *_] = jobs.cases(jobs.SIZES["standard"], gpu=False)
    order = [(number, contestant.name) for _, contestant, number in command.schedule([tuning], 3)]
    assert len(set(order)) == 9
    assert {order[start][1] for start in (0, 3, 6)} == {contestant.name for contestant in tuning.contestants}


def test_less_work_is_refused():
    with pytest.raises(RuntimeError, match=r"trained on \[64, 60\]"):
        contest._same_work(case(examples=32, epochs=2), [64, 60])
    contest._same_work(case(examples=32, epochs=2), [64, 64])


# --- measuring


def test_a_fresh_process_is_timed_and_weighed(tmp_path):
    """Measured from a small process, as the benchmark is: this one may have torch in it by now."""
    big = "import time; block = bytearray(80_000_000); time.sleep(0.2); print('done')"
    code = f"""
import pathlib, sys
from scripts._benchmark.measure import run_fresh
spent = run_fresh([sys.executable, "-c", {big!r}], pathlib.Path({str(tmp_path / "log")!r}))
print(spent.seconds, spent.peak_memory_bytes)
"""
    said = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parent.parent, capture_output=True, text=True, check=True
    ).stdout
    seconds, peak = map(float, said.split())
    assert 0.2 <= seconds < 20
    assert 80e6 < peak < 200e6
    assert (tmp_path / "log").read_text() == "done\n"


def test_memory_of_children_counts(tmp_path):
    child = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'bytearray(80_000_000)'], check=True)"
    assert run_fresh([sys.executable, "-c", child], tmp_path / "log").peak_memory_bytes > 80e6


def test_a_failure_ends_with_the_last_that_was_said(tmp_path):
    with pytest.raises(Failed, match=r"(?s)exit code 3.*no luck"):
        run_fresh([sys.executable, "-c", "print('no luck'); raise SystemExit(3)"], tmp_path / "log")


def test_an_exit_code_may_be_accepted(tmp_path):
    assert run_fresh([sys.executable, "-c", "raise SystemExit(1)"], tmp_path / "log", accepted=ours.RAN).seconds > 0


def test_a_study_that_learnt_nothing_counts_and_one_that_broke_does_not(tmp_path):
    for seed, status in ((1, "degenerate"), (0, "finished")):
        path = tmp_path / "full" / f"seed-{seed}" / "result.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps({"seed": seed, "status": status, "reason": "it did not"}))
    assert [run["seed"] for run in ours.read_study(tmp_path)] == [0, 1]
    path.write_text(json.dumps({"seed": 0, "status": "error", "reason": "no luck"}))
    with pytest.raises(RuntimeError, match="seed 0: no luck"):
        ours.read_study(tmp_path)
    with pytest.raises(RuntimeError, match="no results"):
        ours.read_study(tmp_path / "nowhere")


def test_variables_reach_the_process(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    program = "import os; print(os.environ['HF_HUB_OFFLINE'], os.environ['FINETUNE_CACHE'])"
    run_fresh([sys.executable, "-c", program], tmp_path / "log", contest.environment(tmp_path))
    assert (tmp_path / "log").read_text().split() == ["1", str(tmp_path / "cache" / "finetune")]
    run_fresh([sys.executable, "-c", "import scripts._benchmark"], tmp_path / "log", contest.environment(tmp_path))


def test_a_contestant_that_fails_is_recorded(tmp_path, data, monkeypatch):
    def fail(*_):
        raise Failed("no luck")

    monkeypatch.setattr(command, "measure", fail)
    found = command.attempt(case(), jobs.OURS, 1, Workshop(tmp_path, Corpus(data)))
    assert found == {"case": "tuning", "contestant": "ours", "round": 1, "failed": "no luck"}
    assert command.outcome(case(), found) == "FAILED: no luck"


# --- a peer's best, on the machine at hand


BEST = jobs.Contestant("best", "trainer", {"a": 1}, choices=(({"bf16": False}, {"bf16": True}), ({"b": 2}, {"b": 3})))


def test_every_combination_is_tried_with_one_thread_two_and_all():
    found = [*choosing.combinations(BEST, cores=4, gpu=False)]
    assert len(found) == 2 * 2 * 3 and all(each["a"] == 1 for each in found)
    assert {each["threads"] for each in found} == {1, 2, 4}
    assert {(each["bf16"], each["b"]) for each in found} == {(False, 2), (False, 3), (True, 2), (True, 3)}
    assert {each["threads"] for each in choosing.combinations(BEST, cores=1, gpu=False)} == {1}
    assert all("threads" not in each for each in choosing.combinations(BEST, cores=4, gpu=True))


def test_peers_at_their_best_choose_their_arithmetic_here():
    """What is fastest with units for bfloat16 is the slowest without, so it is written down nowhere."""
    for each in EVERY:
        for peer in each.peers:
            assert "bf16" not in peer.settings and "dtype" not in peer.settings
            assert bool(peer.choices) == peer.name.endswith("best")


MACHINE = {"cores": 2, "gpu": False}


def measured_by(speeds):
    """Stands for measuring: tokens per second by arithmetic, and what does not work."""

    def measure(small, contestant, number, shop):
        settings = contestant.settings
        speed = speeds[settings["bf16"]] * settings["threads"] * (1 + (settings["b"] == 3))
        if speed < 0:
            raise Failed("a command\nexit code 1\nno such kernel")
        return {"figures": {"tokens_per_second": speed, "seconds": 10 / speed}}

    return measure


@pytest.mark.parametrize("speeds, bf16", [((100.0, 6.0), False), ((100.0, 440.0), True), ((100.0, -1.0), False)])
def test_the_fastest_is_chosen_and_the_losers_are_kept(tmp_path, data, monkeypatch, speeds, bf16):
    monkeypatch.setattr(choosing, "measure", measured_by(speeds))
    shop, said = Workshop(tmp_path, Corpus(data)), []
    made, each = record(tmp_path), case(peers=(jobs.Contestant("plain", "trainer"), BEST), examples=640, epochs=3)
    plain, best = choosing.with_best(each, MACHINE, shop, made, said.append).peers
    assert plain == each.peers[0] and best.choices == ()
    assert best.settings == {"a": 1, "bf16": bf16, "b": 3, "threads": 2}
    [kept] = json.loads(made.path.read_text())["choices"]
    assert len(kept["trials"]) == 8 and kept["settings"] == best.settings
    told = "\n".join(choosing.lines(each, made))
    assert told.count("chosen") == 1 and f"chosen  bf16={bf16}, b=3, threads=2" in told
    assert ("no such kernel" in told) == (min(speeds) < 0)
    monkeypatch.setattr(choosing, "measure", None)
    again = choosing.with_best(each, MACHINE, shop, Record.open(made.path, {"size": "quick"}), said.append)
    assert again.peers[1] == best, "what was chosen is not chosen again"


def test_where_the_figure_is_time_the_shortest_is_chosen(tmp_path, data, monkeypatch):
    monkeypatch.setattr(choosing, "measure", measured_by((100.0, 6.0)))
    each = replace(case(peers=(BEST,)), figure="seconds")
    [peer] = choosing.with_best(each, MACHINE, Workshop(tmp_path, Corpus(data)), record(tmp_path), print).peers
    assert peer.settings == {"a": 1, "bf16": False, "b": 3, "threads": 2}


def test_where_nothing_works_measuring_tells_why(tmp_path, data, monkeypatch):
    monkeypatch.setattr(choosing, "measure", measured_by((-1.0, -1.0)))
    each = case(peers=(BEST,))
    [peer] = choosing.with_best(each, MACHINE, Workshop(tmp_path, Corpus(data)), record(tmp_path), print).peers
    assert peer.settings == next(choosing.combinations(BEST, 2, False))


def test_a_trial_is_a_few_batches_of_one_run():
    each = jobs.cases(jobs.SIZES["long"], gpu=False)
    for one in map(choosing._small, (one for one in each if one.peers)):
        assert one.seeds == one.epochs == 1 and one.examples <= 48 and one.held_out <= 200


def test_what_takes_too_long_is_given_up(tmp_path):
    with pytest.raises(Failed, match="given up after"):
        run_fresh([sys.executable, "-c", "import time; time.sleep(60)"], tmp_path / "log", limit=0.3)
    assert run_fresh([sys.executable, "-c", ""], tmp_path / "log", limit=60).seconds < 60


def test_threads_are_of_the_process(tmp_path, data, monkeypatch):
    asked = []
    monkeypatch.setattr(contest, "run_fresh", lambda command, log, variables, limit: asked.append(variables))
    (tmp_path / "trainer-result.json").write_text("{}")
    shop = Workshop(tmp_path, Corpus(data))
    shop.program("trainer", {"settings": {"threads": 1, "bf16": False}}, tmp_path)
    shop.program("trainer", {"settings": {}}, tmp_path)
    assert asked[0]["OMP_NUM_THREADS"] == "1" and "OMP_NUM_THREADS" not in asked[1]
    assert json.loads((tmp_path / "trainer-spec.json").read_text()) == {"settings": {}}


# --- benchmark.json


def test_a_measurement_is_written_at_once_and_found_again(tmp_path):
    first = record(tmp_path, row("ours"))
    again = Record.open(first.path, {"size": "quick"})
    assert again.find("tuning", "ours", 0) == row("ours")
    assert again.find("tuning", "ours", 1) is None and again.find("tuning", "other", 0) is None
    assert again.content["format"] == 1 and again.content["date"]


def test_what_failed_is_measured_again_and_replaced(tmp_path):
    made = record(tmp_path, row("ours", failed="no luck"))
    assert made.find("tuning", "ours", 0) is None and made.of("tuning", "ours") == {}
    made.add(row("ours"))
    assert [each["failed"] for each in json.loads(made.path.read_text())["measurements"]] == [None]


def test_other_settings_are_not_mixed_in(tmp_path):
    made = record(tmp_path, row("ours"))
    with pytest.raises(OtherBenchmark, match=r"other settings \(size\).*--fresh"):
        Record.open(made.path, {"size": "long"})
    assert Record.open(made.path, {"size": "long"}, fresh=True).content["measurements"] == []


def test_settings_are_the_same_once_written(tmp_path):
    settings = {"sizes": {"strategies": ("linear", "full")}}
    Record.open(tmp_path / "b.json", settings).write()
    assert Record.open(tmp_path / "b.json", settings).content["sizes"] == {"strategies": ["linear", "full"]}


def test_the_digest_follows_the_code(tmp_path):
    (tmp_path / "finetune").mkdir()
    (tmp_path / "finetune" / "a.py").write_text("one")
    before = code_digest(tmp_path)
    assert before == code_digest(tmp_path)
    (tmp_path / "finetune" / "a.py").write_text("two")
    assert before != code_digest(tmp_path)


# --- the table


def figures(tokens, seconds=10.0, after=8.0):
    return {"tokens_per_second": tokens, "seconds": seconds, "seconds_after_start": after}


def test_ratios_are_taken_round_by_round():
    mine = {
        number: row("ours", figures=figures(tokens, seconds)) for number, tokens, seconds in ((0, 300, 2), (1, 400, 4))
    }
    peer = {0: row("peer", figures=figures(100, 8)), 1: row("peer", figures=figures(200, 20)), 2: row("peer")}
    assert table.ratios(mine, peer, "tokens_per_second") == [3, 2]
    assert table.ratios(mine, peer, "seconds") == [4, 5]
    assert table.spread([3, 1, 8]) == {"median": 3, "min": 1, "max": 8}
    assert table.spread([]) is None


def summary(tmp_path, each, *rows):
    return {found["contestant"]: found for found in table.summarise(each, record(tmp_path, *rows))}


def test_a_target_is_reached_by_the_median(tmp_path):
    peers = (jobs.Contestant("peer", "trainer", {}, 2.0), jobs.Contestant("best", "trainer", {}, 2.5))
    rows = [row("ours", number, figures=figures(speed)) for number, speed in enumerate((150, 200, 300))]
    rows += [row(peer.name, number) for number in range(3) for peer in peers]
    found = summary(tmp_path, case(peers=peers), *rows)
    assert found["peer"]["ratio"] == {"median": 2, "min": 1.5, "max": 3}
    assert (found["peer"]["reached"], found["best"]["reached"], found["ours"]["reached"]) == (True, False, None)
    assert table.missed(list(found.values())) == ["tuning (best)"]


def test_a_limit_holds_for_ours(tmp_path):
    each = case(job="d", figure="seconds", limit=10.0)
    assert summary(tmp_path, each, row("ours"))["ours"]["reached"] is True
    assert summary(tmp_path / "more", each, row("ours", figures=figures(1, 10.5)))["ours"]["reached"] is False


def test_scores_are_equal_when_their_intervals_overlap(tmp_path):
    peers = (jobs.Contestant("near", "trainer"), jobs.Contestant("far", "trainer"))
    near = {"name": "accuracy", "value": 0.78, "low": 0.69, "high": 0.85}
    far = {"name": "accuracy", "value": 0.8, "low": 0.71, "high": 0.9}
    found = summary(tmp_path, case(peers=peers), row("ours"), row("near", score=near), row("far", score=far))
    assert [found[name]["equal_scores"] for name in ("ours", "near", "far")] == [None, True, False]
    text = "\n".join(table.lines(case(peers=peers), list(found.values())))
    assert "far: its score's interval does not overlap" in text and "near: its score" not in text


def test_memory_is_compared_where_that_is_asked_for(tmp_path):
    peers = (jobs.Contestant("small", "trainer"), jobs.Contestant("gpu", "trainer"))
    rows = (row("ours"), row("small", peak_memory_bytes=400), row("gpu", peak_memory_bytes=1, device_memory_bytes=900))
    found = summary(tmp_path, case(peers=peers, watch_memory=True), *rows)
    assert (found["small"]["less_memory"], found["gpu"]["less_memory"]) == (False, True)
    assert table.missed(list(found.values())) == ["memory of tuning (small)"]
    assert summary(tmp_path / "more", case(peers=peers), *rows)["small"]["less_memory"] is None


def test_labels_are_compared_one_by_one():
    mine = {0: row("ours", facts={"labels": "0110"}), 1: row("ours", facts={"labels": "0110"})}
    peer = {0: row("peer", facts={"labels": "0110"}), 1: row("peer", facts={"labels": "0111"})}
    assert table.agreement(mine, peer) == 0.75
    assert table.agreement({0: row("ours")}, {0: row("peer")}) is None


def test_peers_are_shown_although_ours_failed(tmp_path):
    each = case(peers=(jobs.Contestant("peer", "trainer", {}, 2.0),), watch_memory=True)
    made = record(tmp_path, row("ours", failed="no luck"), row("peer"))
    [only] = table.summarise(each, made)
    assert (only["contestant"], only["ratio"], only["reached"], only["less_memory"]) == ("peer", None, None, None)
    assert any("peer" in line for line in table.lines(each, [only]))
    assert table.lines(each, [])[-1].strip() == "not measured"


def test_the_table_says_ratio_target_memory_and_score(tmp_path):
    each = case(peers=(jobs.Contestant("peer", "trainer", {}, 2.0),), examples=640)
    rows = [row("ours", n, figures=figures(12345), peak_memory_bytes=700e6) for n in (0, 1)]
    rows += [row("peer", n, figures=figures(1000 + n * 1000)) for n in (0, 1)]
    lines = table.lines(each, table.summarise(each, record(tmp_path, *rows)))
    assert lines[0] == "(a) full tuning of MiniLM-L6 on RTE · tuning: 640 examples, 1 epoch"
    assert lines[2].split() == ["ours", "12,345", "700", "MB", "accuracy", "0.600", "[0.500,", "0.700]"]
    assert "9.26 [6.17, 12.3] ×" in lines[3] and "2× reached" in lines[3] and "1,500 [1,000, 2,000]" in lines[3]


def test_a_page_has_each_job_beside_its_peers_at_their_best(tmp_path):
    made = record(tmp_path, *(row(name, case="full tuning") for name in ("HF Trainer, best", "HF Trainer, defaults")))
    made.add(row("ours", case="full tuning", figures=figures(250), peak_memory_bytes=700e6))
    made.add(row("ours", case="finetune --help", figures=figures(1, 0.25), score=None))
    machine = {"device": "a CPU", "arithmetic": "AVX2", "gpu": False, "threads": 2}
    made.content["machine"] = {**machine, "packages": {"transformers": "5.0", "trl": None}}
    with pytest.raises(SystemExit, match="quick"):
        page.text(made)
    made.content["size"] = "standard"
    head, _, *lines = page.text(made).splitlines()
    assert [line.count("|") for line in lines[:2]] == [head.count("|")] * 2
    assert "| tokens/s | 250 | HF Trainer, best | 100 | 2.5 × | – | 700 MB, theirs 0 MB |" in lines[0]
    assert "0.6 [0.5, 0.7], theirs 0.6 [0.5, 0.7] |" in lines[0] and "| s | 0.25 | – | – | – | – |" in lines[1]
    assert lines[2:] == ["", "a CPU, AVX2, 2 threads; transformers 5.0; rounds in turn: 1."]


def test_an_interval_over_tokens_follows_from_whole_examples():
    found = ratio_estimate([2.0, 6.0], [2, 2])
    assert found["value"] == 2.0
    # Residuals -2 and 2, so the mean's standard error is sqrt(8 / 1 / 2) = 2, of 2 tokens each: 1 nat.
    assert (found["low"], found["high"]) == pytest.approx((2 - 1.96, 2 + 1.96))


def test_a_shares_interval():
    assert wilson(0.5, 100) == pytest.approx((0.4038, 0.5962), abs=1e-4)
    low, high = wilson(1.0, 10)
    assert low == pytest.approx(0.7225, abs=1e-3) and high == pytest.approx(1.0)


def test_an_interval_over_seeds_uses_students_t():
    found = contest._accuracy([0.5, 0.6, 0.7, 0.6, 0.6], 100)
    assert found["value"] == pytest.approx(0.6)
    assert found["high"] - found["value"] == pytest.approx(2.776 * 0.0707107 / 5**0.5, rel=1e-4)


def test_intervals_are_there_for_every_number_of_seeds():
    assert all(each.seeds == 1 or each.seeds - 1 in contest.T_975 for each in EVERY)


# --- end to end


@pytest.mark.slow
def test_everything_but_the_chat_runs_end_to_end(tmp_path, data, monkeypatch, capsys):
    monkeypatch.setitem(jobs.SIZES, "quick", jobs.Sizes(1, 32, 16, 8, 4, 16, 16, 1, 2, ("lora",), 32, (4,), 20, 2))
    monkeypatch.setattr(command, "code_digest", lambda root: "the same")  # whoever edits a file meanwhile
    every = choosing.combinations  # tried with stand-ins above; each takes a process that loads torch
    monkeypatch.setattr(choosing, "combinations", lambda *known: itertools.islice(every(*known), 1))
    output = tmp_path / "benchmark.json"
    arguments = ["--quick", "--jobs", "a,c,d,e", "--data", str(data), "--output", str(output)]
    assert command.main(arguments) == 0, capsys.readouterr().err
    content = json.loads(output.read_text(encoding="utf-8"))
    assert [row["failed"] for row in content["measurements"]] == [None] * (3 + 3 + 3 + 5)
    by_case = {each["case"]: [] for each in content["measurements"]}
    for each in content["measurements"]:
        # Ours keeps a list of what was trained, a peer one of its processes.
        runs = each["facts"].get("training") or each["facts"].get("runs") or [{}]
        by_case[each["case"]].append((runs[0].get("tokens"), each["facts"].get("trainable", runs[0].get("trainable"))))
    for name in ("full tuning", "lora, 2 seeds"):
        assert len(set(by_case[name])) == 1, f"{name}: everybody learns from as many tokens, with as many parameters"
    said = capsys.readouterr().out
    assert "QUICK" in said and said.count("(c) ") == 1
    assert command.main(arguments) == 0
    assert "round 1 of 1" not in capsys.readouterr().err, "what has been measured is not measured again"
