"""Examples that belong together are not divided between what is learnt and what is held out."""

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.core.errors import InputError
from finetune.data import Reading, checks, load_splits
from finetune.data.columns import require_clusters, require_text
from finetune.data.options import DataOptions, Source, Split
from finetune.data.sources import as_dataset, with_example


def table(clusters):
    texts = [f"text {number}" for number in range(len(clusters))]
    return as_dataset(with_example(pa.table({"text": texts, "patient": clusters})))


@pytest.fixture
def patients(tmp_path):
    """Writes files of the given patients, one text each, and loads them with the options."""
    count = iter(range(1000))

    def load(split=None, leaks="refuse", cluster="patient", columns=None, held_out=(), **files):
        sources = {}
        for name, clusters in files.items():
            rows = "".join(f"text {next(count)},{patient}\n" for patient in clusters)
            (tmp_path / f"{name}.csv").write_text("text,patient\n" + rows)
            sources[name] = Source(path=str(tmp_path / f"{name}.csv"), columns=(columns or {}).get(name, {}))
        other = {name: sources.pop(name) for name in held_out}
        options = DataOptions(**sources, split=Split(**split or {}), leaks=leaks)
        reading = Reading(["text"], lambda data, at: require_text(data, "text", at, "t"), cluster)
        return load_splits(options, other, 0, reading)

    return load


def test_a_cluster_on_both_sides_is_refused_and_the_cure_works(patients, refused):
    anna, ben = ["anna"] * 10, ["ben", "carl"] * 10
    with refused("data.split.test", "3 of the 3 values of 'patient'", "'anna'", "`data.split.group: patient`"):
        patients({"test": 15}, train=anna + ben)
    splits = patients({"test": 15, "group": "patient"}, train=anna + ben)
    assert not set(splits.train["patient"]) & set(splits.held_out["test"]["patient"])
    assert splits.facts["leaks"]["groups"] == {"column": "patient", "found": 0, "dropped": 0}


def test_files_of_their_own_are_looked_at_together(patients, refused):
    files = {"train": ["anna", "ben"], "test": ["carl", "ben"], "tweets": ["anna"]}
    with pytest.raises(InputError) as error:
        patients(held_out=["tweets"], **files)
    assert [problem.path for problem in error.value.problems] == ["data.test", "evaluate.tweets.data"]
    first, second = error.value.problems
    assert first.found == "1 of the 2 values of 'patient' are in the training data too, such as 'ben'"
    assert (
        "`data.leaks` to drop" in second.advice
        and '`patient: "new {patient}"` in evaluate.tweets.data.columns' in second.advice
    )


def test_the_advised_columns_tell_other_clusters_apart(patients):
    columns = {"tweets": {"patient": "new {patient}"}}
    splits = patients(held_out=["tweets"], columns=columns, train=["1", "2"], tweets=["1"])
    assert splits.train.num_rows == 2 and splits.held_out["tweets"]["patient"][0] == "new 1"


def test_clusters_are_dropped_from_training_whole(patients):
    splits = patients(leaks="drop", train=["anna", "ben", "anna", "carl"], test=["anna", "dora"])
    assert list(splits.train["patient"]) == ["ben", "carl"] and list(splits.train["example"]) == [0, 1]
    assert splits.facts["leaks"]["groups"] == {"column": "patient", "found": 1, "dropped": 2}


def test_clusters_are_allowed_and_counted(patients):
    splits = patients(leaks="allow", train=["anna", "ben"], test=["anna"])
    assert splits.train.num_rows == 2
    assert splits.facts["leaks"]["groups"] == {"column": "patient", "found": 1, "dropped": 0}


def test_dropping_every_cluster_is_refused(patients, refused):
    with refused("data.leaks", "every 'patient' of the training data"):
        patients(leaks="drop", train=["anna"], test=["anna"])


def test_a_column_that_is_missing_is_told_with_the_nearest(patients, refused):
    with refused("task.group", "data.train has no column 'patients'", "patient"):
        patients({"test": 1}, cluster="patients", train=["anna", "ben"])


def test_gaps_are_refused(patients, refused):
    with refused("task.group", "column 'patient' of data.test has an empty value in row 2"):
        patients(train=["anna"], test=["ben", ""])


def test_lists_are_no_clusters(refused):
    with refused("task.group", "column 'patient' of data.train holds list"):
        require_clusters(table([["anna"], ["ben"]]), "patient", "data.train", "task.group")
    with refused("task.group", "no value in row 2"):
        require_clusters(table([1, None]), "patient", "data.train", "task.group")


def test_without_the_option_nothing_is_said(patients):
    splits = patients({"test": 1}, cluster=None, train=["anna", "anna"])
    assert "groups" not in splits.facts["leaks"]


def test_a_number_and_its_text_are_the_same_cluster():
    _, facts = checks.without_shared_clusters(table([1, 2]), {"data.test": table(["2", "3"])}, "patient", "allow")
    assert facts["found"] == 1


@settings(max_examples=25)
@given(st.lists(st.integers(0, 5), min_size=1), st.lists(st.integers(0, 5), min_size=1))
def test_what_is_kept_shares_nothing_and_only_the_shared_is_dropped(train, test):
    both = set(train) & set(test)
    if both == set(train):
        with pytest.raises(InputError):
            checks.without_shared_clusters(table(train), {"data.test": table(test)}, "patient", "drop")
        return
    kept, facts = checks.without_shared_clusters(table(train), {"data.test": table(test)}, "patient", "drop")
    assert list(kept["patient"]) == [cluster for cluster in train if cluster not in both]
    assert facts["found"] == len(both) and facts["dropped"] == len(train) - kept.num_rows
