"""On thirty prepared files the task is right every time, and the columns nearly so."""

import functools

import pytest

from finetune.core.registry import TASKS
from finetune.init.columns import columns_of
from finetune.init.groups import group_of
from finetune.init.reading import find
from finetune.init.understanding import understand
from tests.init.files import FILES, Writer

TRAPS = {"index column", "ids", "leaks", "imbalanced labels", "long texts", "several text columns"}
TRAPS |= {"numbers as labels", "nested messages"}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """found(file) -> what it is understood to be for, and its columns."""

    @functools.cache
    def understood(name):
        number, file = next((number, each) for number, each in enumerate(FILES) if each.name == name)
        path = file.write(tmp_path_factory.mktemp(name), Writer(100 + number))
        columns = columns_of(find(str(path)).data)
        return understand(columns, file.family), columns

    return understood


def test_the_files_are_thirty_of_every_task_in_six_formats_and_more_with_eight_traps(tmp_path):
    assert len(FILES) == 30 and {trap for file in FILES for trap in file.traps} == TRAPS
    assert {file.task for file in FILES} == {*TASKS.all()}
    kinds = {"".join(file.write(_new(tmp_path / file.name), Writer(0)).suffixes[:1]) for file in FILES}
    assert {".csv", ".tsv", ".jsonl", ".json", ".parquet", ".xlsx", ".db", ".conll", ""} <= kinds


def _new(folder):
    folder.mkdir()
    return folder


def test_the_task_is_right_thirty_times_and_the_columns_at_least_28(found):
    tasks = {file.name: found(file.name)[0].task == file.task for file in FILES}
    columns = {
        file.name: ({*found(file.name)[0].inputs}, {*found(file.name)[0].answer}) == (file.read, file.answer)
        for file in FILES
    }
    assert [name for name, right in tasks.items() if not right] == []
    assert sum(columns.values()) >= 28, [name for name, right in columns.items() if not right]


@pytest.mark.parametrize("name", [file.name for file in FILES if "numbers as labels" in file.traps])
def test_whole_numbers_are_a_scale_only_where_mistakes_go_to_neighbours(found, name):
    file = next(file for file in FILES if file.name == name)
    assert found(name)[0].options.get("ordinal", False) is file.ordinal


def test_rows_that_belong_together_are_found_and_no_others(found):
    groups = {file.name: group_of(found(file.name)[1], found(file.name)[0]) for file in FILES}
    assert {name: group and group[0] for name, group in groups.items()} == {file.name: file.group for file in FILES}


def test_what_is_left_out_is_said(found):
    left = found("leaking_tickets")[0].left
    assert "nothing would be left to learn" in left["agent_note"] and left["mailbox"] == "says the same as 'department'"


def test_preferences_are_known_as_such(found):
    assert [file.name for file in FILES if found(file.name)[0].preference] == ["better_and_worse"]
