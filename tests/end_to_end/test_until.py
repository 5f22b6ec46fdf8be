"""Seeds that are added until an interval is narrow, through the command line: killed, finished, refused."""

from __future__ import annotations

import signal

import pytest

from tests.end_to_end.reading import predictions, scores
from tests.end_to_end.test_killed import DIE, RENAME

RULE = "seeds={until: {ci_width: 0.01}, at_least: 4, at_most: 6}"
RUN = ("run", "topics.yaml", RULE, "train.min_steps=24", "train.checkpoint_seconds=0")


@pytest.mark.slow
@pytest.mark.parametrize(
    "place, together",
    [("linear/seed-4/result.json", 1), ("full/seed-5/predictions/test.parquet", 2)],
)
def test_killed_while_seeds_are_added(topics, finetune, tmp_path, place, together):
    how = (*RUN, f"train.replicas={together}")
    assert finetune(*how, "--output", "whole").code == 0
    killed = finetune(*how, hook=DIE + RENAME.format(target=place, when="before"))
    assert killed.code == -signal.SIGKILL, killed.text
    done = finetune(*how)
    assert done.code == 0, done.text
    study, whole = tmp_path / "runs" / "topics", tmp_path / "whole" / "topics"
    assert len(scores(study)) == 2 * 6
    assert scores(study) == scores(whole)
    tables, wanted = predictions(study), predictions(whole)
    assert tables.keys() == wanted.keys() and all(tables[path].equals(wanted[path]) for path in wanted)
    again = finetune(*how)
    assert again.code == 0 and "every run is finished already" in again.text


@pytest.mark.parametrize(
    "written, said",
    [
        ("{until: {ci_width: 1.0}, at_least: 9, at_most: 3}", "seeds: at_least is 9, more than at_most, which is 3"),
        ("{until: {ci_width: 1.0}, at_most: 3}", "seeds: at_least is 5 by default, more than at_most, which is 3"),
        ("{until: {ci_width: 0}}", "seeds.until.ci_width: is 0, a whole number; it must be greater than 0"),
        ("{until: {ci_width: -1.5}}", "seeds.until.ci_width: is -1.5, a number; it must be greater than 0"),
        ("{until: {width: 1.0}}", "seeds.until.width: there is no key 'width' in seeds.until"),
        ("{until: {ci_width: 1.0}, at_mots: 9}", "seeds.at_mots: there is no key 'at_mots' in seeds"),
        ("{at_least: 3}", "seeds.until: is missing"),
        ("{until: {ci_width: 1.0}, at_least: 1}", "seeds.at_least: is 1, a whole number; it must be at least 2"),
    ],
)
def test_what_is_wrong_with_a_rule_is_said_once(topics, finetune, tmp_path, written, said):
    topics.write_text(topics.read_text().replace("seeds: 2", f"seeds: {written}"))
    done = finetune("run", "topics.yaml")
    assert done.code == 2, done.text
    message = " ".join(done.err.split())
    assert message.startswith(f"topics.yaml:2: {said}") and message.endswith("1 problem; nothing was started")
    assert not (tmp_path / "runs").exists()


def test_check_tells_how_many_runs_there_may_be(topics, finetune):
    done = finetune("check", "topics.yaml", "--recipe-only", "seeds={until: {ci_width: 1}, at_least: 5, at_most: 30}")
    assert done.out.splitlines()[0] == "topics: 2 variants x 5 to 30 seeds = 10 to 60 runs"
