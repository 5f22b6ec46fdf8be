"""What `finetune check` says of labels and of columns that repeat, in a recipe of real files."""

import csv

import pytest

from finetune import cli
from tests import tiny


@pytest.fixture
def notes(topics, capsys):
    """Checks the recipe `topics` with further columns in its data; returns the lines in one."""
    rows = tiny.sentences(90)

    def check(*overrides, expect=0, relabel=lambda number, label: label, **columns):
        with open(topics.parent / "news.csv", "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["text", "label", *columns])
            for number, (text, label) in enumerate(rows):
                writer.writerow([text, relabel(number, label), *(made(number) for made in columns.values())])
        code = cli.main(["check", str(topics), "--fresh", *overrides])
        printed = capsys.readouterr()
        assert code == expect, printed.err
        return " ".join((printed.out.partition("data and parameters\n")[2] + printed.err).split())

    return check


def test_labels_are_listed(notes):
    said = notes()
    assert "labels: 3 in column 'label', with their examples in train/validation/test: money 16/4/10, space" in said
    assert "alike" not in said and "repeat" not in said


def test_numbers_are_summarised(notes, topics):
    task = ["task={type: regression, max_length: 32, target: size}", "data.split.stratify=null"]
    one = "variants.linear.task.pooling=auto"
    said = notes(*task, one, size=lambda n: n / 2)
    assert "numbers in column 'size': train mean" in said and "; validation mean" in said and "labels" not in said
    assert "in the same unit?" not in said
    lines = [f"{text} again,{1000 + number}" for number, (text, _) in enumerate(tiny.sentences(9, 1))]
    (topics.parent / "test.csv").write_text("\n".join(["text,size", *lines]) + "\n")
    own = ["data.split.test=0", f"data.test.path={topics.parent / 'test.csv'}"]
    assert "SDs from those that are learnt, on average" in notes(*task, one, *own, size=lambda n: n / 2)


def test_labels_that_look_alike_are_shown_and_not_refused(notes):
    odd = {0: "money\u200b", 3: "money\u200b", 6: "money\u200b", 1: "-1", 4: "-1", 7: "-1", 10: "-1"}
    said = notes("data.split.stratify=null", "data.split.test=3", "data.split.validation=3", relabel=odd.get)
    assert "labels that look alike count as different ones: 'money' (27 examples), 'money<U+200B>' (3 examples)" in said
    assert "the label '-1' (4 examples) is learnt as a class of its own" in said


def test_a_label_that_only_the_test_set_writes_so_is_shown_as_it_is(notes, topics):
    tiny.write_csv(topics.parent / "test.csv", [(f"{text} again", f"{label} ") for text, label in tiny.sentences(9, 1)])
    said = notes("data.split.test=0", f"data.test.path={topics.parent / 'test.csv'}", expect=2)
    assert "money<U+0020>" in said and "stratify" not in said.partition("Correct")[2]


def test_columns_whose_values_repeat_are_candidates(notes):
    said = notes(author=lambda n: f"author {n % 12}", link=lambda n: f"http://{n}", source=lambda n: "one feed")
    assert "column 'author' is not used, and its values repeat: 12 in 90 rows, 90 of which" in said
    assert "write `group: author` in task and `group: author` in data.split" in said
    assert "'link'" not in said and "'source'" not in said, "values of their own, and a constant"


def test_following_it_is_right_and_says_no_more(notes):
    columns = {"author": lambda n: f"author {n % 12}"}
    overrides = ["task.group=author", "data.split.group=author", "data.split.stratify=null"]
    assert "group" not in notes(*overrides, **columns)
    assert "errors still count every example by itself instead: write `group: author` in task" in notes(
        *overrides[1:], **columns
    )
    said = notes(overrides[0], "data.leaks=allow", **columns)
    assert "may be both learnt from and held out instead: write `group: author` in data.split" in said


def test_copies_of_the_label_and_used_columns_are_no_candidates(notes):
    said = notes(
        'data.train.columns={"text": "{text} {hour}"}',
        topic=lambda n: sorted(tiny.WORDS)[n % 3].upper(),
        coarse=lambda n: "news" if n % 3 else "sport",
        hour=lambda n: n % 24,
        flag=lambda n: n % 7 / 2,
    )
    assert "repeat" not in said


def test_a_patient_who_always_has_the_same_label_is_a_candidate(notes):
    assert "column 'patient' is not used" in notes(patient=lambda n: n % 30)


def test_gaps_are_said_before_they_are_refused(notes):
    said = notes(author=lambda n: "" if n < 5 else f"author {n % 12}")
    assert "fill in the 5 rows that have none, write `group: author`" in said


def test_a_file_that_lacks_the_column_is_named(notes, topics):
    tiny.write_csv(topics.parent / "tweets.csv", tiny.sentences(9, 5))
    said = notes(
        f'evaluate=[{{name: tweets, data: {{path: "{topics.parent / "tweets.csv"}"}}}}]', author=lambda n: n % 12
    )
    assert "add the column to tweets, write `group: author`" in said


def test_sources_of_a_mixture_are_counted_and_no_candidates(notes, topics):
    tiny.write_csv(topics.parent / "more.csv", tiny.sentences(20, 1))
    train = f"[{{path: {topics.parent / 'news.csv'}, weight: 2}}, {{path: {topics.parent / 'more.csv'}}}]"
    said = notes(f"data.train={train}", "data.split.train=null")
    assert "training examples by source, each as often as its weight says: news 1" in said and "more 1" in said
    assert "'portion'" not in said


def test_repeated_texts_with_other_labels_are_told(notes, topics):
    rows = tiny.sentences(90)
    again = [(text, "money" if label != "money" else "sport") for text, label in rows[:5]]
    tiny.write_csv(topics.parent / "twice.csv", [*rows, *rows[:3], *again])
    said = notes(f"data.train.path={topics.parent / 'twice.csv'}")
    assert (
        "8 rows of data.train repeat an earlier one, and are left out (data.duplicates); 5 of them have another" in said
    )
    assert "repeat an earlier one" not in notes()


@pytest.mark.parametrize("empty", [" ", "\u200b\u200d", "\ufeff"])
def test_texts_that_are_empty_are_told_with_their_row(notes, topics, empty):
    rows = tiny.sentences(90)
    tiny.write_csv(topics.parent / "gaps.csv", [*rows[:40], (empty, "sport"), *rows[40:]])
    said = notes(f"data.train.path={topics.parent / 'gaps.csv'}")
    assert "1 example has no text: nothing of it can be seen, in data.train, row 41" in said
