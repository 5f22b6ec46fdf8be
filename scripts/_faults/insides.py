"""What comes from inside a process, or from what it reads: no number, no memory, another time, no server."""

from __future__ import annotations

import json
import signal

from scripts._faults import recipes
from scripts._faults.kinds import Trial, kind
from scripts._faults.studies import Study
from tests import served, tiny

DAY = 86_400


@kind(
    "a loss that is no number",
    "The loss of one step is NaN: the run is given up before that step is taken, is `diverged` in the report, which "
    "says at which step, and the command ends with 1. When its result is removed, it is done again from its start, as "
    "for a diverged run there is no state to go on from.",
)
def not_a_number(trial: Trial) -> None:
    study, step = trial.study(), trial.rng.randint(1, recipes.STEPS)
    command = study.start(fault={"kind": "nan", "step": step})
    code = command.wait()
    found = [path for path in study.study.glob("*/seed-*/result.json")]
    diverged = [path for path in found if json.loads(path.read_text(encoding="utf-8"))["status"] == "diverged"]
    trial.outcome.faults += len(diverged)
    reasons = [json.loads(path.read_text(encoding="utf-8"))["reason"] for path in diverged]
    if not diverged or any(f"at step {step}" not in reason for reason in reasons):
        trial.outcome.wrong.append(f"a loss at step {step} was no number: {code}, {reasons}")
    if code != 1 or "diverged" not in command.said:
        trial.outcome.wrong.append(f"ended with {code}, and did not tell: {command.said[-300:]}")
    trial.outcome.errors += code == 1
    for path in diverged:
        path.unlink()
    for combined in ("soup-uniform", "ensemble"):  # made of what was left
        for path in study.study.glob(f"*/{combined}/result.json"):
            path.unlink()
    trial.outcome.resumed += 1
    study.run()
    study.events_file.unlink()  # the run was begun anew, as it has to be
    trial.finish(study)


@kind(
    "no memory",
    "From some step on only a part of the batch finds room: training goes on in smaller parts, whose gradients are "
    "summed up. Scores are then equal up to rounding.",
    shapes=("full", "LoRA", "partial", "side by side", "one by one"),
)
def memory(trial: Trial) -> None:
    study = trial.study()
    step = trial.rng.randint(1, recipes.STEPS - 1)
    rows = trial.rng.choice([4, 5, 8])
    command = study.start(fault={"kind": "memory", "step": step, "rows": rows})
    trial.outcome.faults += 1
    trial.expect(command, 0)
    if "out of memory: going on with parts of" not in command.said:
        trial.outcome.wrong.append(f"nobody was told: {command.said[-300:]}")
    trial.finish(study, rounded=True)


@kind(
    "a clock that jumps",
    "The time of day jumps by up to a year, forwards or back, in two processes that share a study, one of which is "
    "killed or asked to leave: leases go by a clock that does not jump, and by whether they change.",
)
def clock(trial: Trial) -> None:
    from scripts._faults.processes import two

    by = trial.rng.choice([-1, 1]) * trial.rng.choice([60, 3600, DAY, 365 * DAY])
    trial.outcome.faults += 1
    two(trial, {"kind": "clock", "event": trial.moment()[0], "by": by})


def read_from(server: served.Served, study: Study) -> None:
    """Let the study read its data from a web server of this machine."""
    recipe = study.folder / f"{study.name}.yaml"
    said = recipe.read_text(encoding="utf-8").replace("path: news.csv", f'path: "{server.url("news.parquet")}"')
    recipe.write_text(said, encoding="utf-8")


@kind(
    "a killed download",
    "The server of the data hangs up in the middle of a file, once or several times, or for good, or the process is "
    "killed meanwhile: what is short of its size is asked for again, and at last refused in one line; nothing that was "
    "cut short is learnt from.",
    shapes=("full", "LoRA", "partial", "side by side"),
)
def download(trial: Trial) -> None:
    study, whole, rng = trial.study(), trial.bench.study(trial.shape), trial.rng
    served.write_parquet(whole.folder / "news.parquet", tiny.sentences(90))
    with served.serving(whole.folder) as server:
        read_from(server, whole)
        read_from(server, study)
        whole.run()
        server.ignores_ranges = rng.random() < 0.5
        times = rng.choice([1, 2, 4, 100])
        cut = served.cut_short if not server.ignores_ranges else half
        server.fault = served.sometimes(times, cut)
        command = study.start()
        if rng.random() < 0.3 and study.wait_for(command, 1, "phase reading", rng.uniform(0, 0.5)):
            command.send(signal.SIGKILL)
        trial.outcome.faults += 1
        trial.expect(command, *([2] if times == 100 else [0]), -signal.SIGKILL)
        server.fault = None
        trial.finish(study, reference=whole)


def half(handler: served.Handler) -> bool:
    """Send half of a file, and hang up."""
    content = (handler.served.folder / handler.path.lstrip("/")).read_bytes()
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    handler.wfile.write(content[: len(content) // 2])
    handler.wfile.flush()
    return handler.hang_up()
