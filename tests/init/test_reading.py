"""What is read of files as people have them: where a first line is a header, and what is said of those that are not
what they seem."""

import gzip
import itertools
import re

import pytest

from finetune.core.errors import InputError
from finetune.init.columns import columns_of
from finetune.init.reading import find
from finetune.init.understanding import understand
from tests import tiny
from tests.init.files import Writer, table

ROWS = tiny.sentences(60)


def repeated(*heading):
    return [*ROWS[:20], heading, *ROWS[20:40], heading, *ROWS[40:]]


@pytest.mark.parametrize(
    "heading, rows",
    [
        (("What is the text of the article?", "label"), ROWS),
        (("What is the text of the article?", "Which topic is it of?"), ROWS),
        (("Please paste the text of the article", "Choose one of its topics"), ROWS),
        (("text", "label"), [*ROWS, *[(f"{text} again", "label") for text, _ in ROWS[:5]]]),
        (("text", "label"), [*ROWS, ("text", "sport"), ("text", "food")]),
        (("text", "label"), repeated("text", "label")),
    ],
    ids=["a question", "questions", "requests", "a label called label", "a text that says text", "files in a row"],
)
def test_a_header_line_is_no_example(tmp_path, heading, rows):
    read = find(str(table(tmp_path / "rows.csv", heading, rows)))
    assert read.data.column_names[:2] == [*heading] and read.data.num_rows == len(rows) and not read.notes


@pytest.mark.parametrize(
    "rows",
    [
        ROWS,
        [(f"{text} was the last of what they said", f"{text} was what they said at last") for text, _ in ROWS],
        [(f"{text} was the last of what they said",) for text, _ in ROWS],
        [(label, text, "user" if number % 2 else "assistant") for number, (text, label) in enumerate(ROWS)],
        [(text, "y" if number % 2 else "n") for number, (text, _) in enumerate(ROWS)],
        [(f"{number / 60:.2f}", text) for number, (text, _) in enumerate(ROWS)],
    ],
    ids=["labels", "pairs", "texts", "roles", "y or n", "numbers"],
)
def test_an_example_is_no_header_line(tmp_path, rows):
    read = find(str(table(tmp_path / "rows.csv", None, rows)))
    assert read.data.num_rows == len(rows) and read.options["names"][0] == "column_1"


@pytest.mark.parametrize("above", ["\n\n", "\r\n", ",\n"])
def test_empty_lines_above_the_header_hide_nothing(tmp_path, above):
    path = table(tmp_path / "rows.csv", ("text", "label"), ROWS)
    path.write_text(above + path.read_text())
    read = find(str(path))
    assert read.data.column_names[:2] == ["text", "label"] and read.data.num_rows == len(ROWS) and not read.notes


def test_a_long_value_hides_no_example(tmp_path):
    rows = [*ROWS, ("long " * 40_000, "food"), *ROWS]
    assert find(str(table(tmp_path / "rows.csv", ("text", "label"), rows))).data.num_rows == len(rows)
    assert find(str(table(tmp_path / "none.csv", None, rows))).data.num_rows == len(rows)


UNREADABLE = [
    ("twice.csv", b"text,label,label\na b,c,d\nb c,c,e\n", "several columns called 'label'"),
    ("broken.csv.gz", gzip.compress(b"text,label\n" * 99, mtime=0)[:20] + b"\0" * 40, "is cut short or broken"),
    ("plain.csv.gz", b"text,label\na,b\n", "is not compressed with gzip"),
    (
        "german.csv",
        b"text;label\na b;c\nb, c;d\nc;e\n",
        "columns of .* stand apart by ';'.*write it with commas, or as",
    ),
    ("quoted.csv", b'text;label\n"a; b";c\nb c;d\nc;e\n', "columns of .* stand apart by ';'"),
    ("bars.csv", b"text|label\na b|c\nb c|d\nc|e\n", r"columns of .* stand apart by '\|'"),
    (
        "tabs.csv",
        b"text\tlabel\na b\tc\nb c\td\nc\te\n",
        "columns of .* stand apart by tabs.*call it .tsv, or write",
    ),
    ("commas.tsv", b"text,label\na b,c\nb c,d\nc,e\n", "columns of .* stand apart by ','.*call it .csv"),
    ("", b"", "names no file"),
    ("hub:", b"", "names no dataset"),
    ("hub:@main", b"", "names no dataset"),
    ("hub:/", b"", "names no dataset"),
    ("sqlite:", b"", "names no file"),
    ("https://example.org/rows.csv", b"", "from elsewhere only parquet files are read"),
]


@pytest.mark.parametrize("name, content, expected", UNREADABLE, ids=[name or "empty" for name, *_ in UNREADABLE])
def test_what_cannot_be_read_is_told(tmp_path, monkeypatch, name, content, expected):
    monkeypatch.chdir(tmp_path)
    if content:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError) as told:
        find(name)
    assert re.search(expected, " ".join(str(told.value).split()))


def test_semicolons_in_texts_stand_for_nothing(tmp_path):
    rows = [(f"{text}; {label}",) for text, label in ROWS]
    assert find(str(table(tmp_path / "rows.csv", ("text",), rows))).data.num_rows == len(rows)


@pytest.mark.parametrize(
    "name, content, expected",
    [
        ("validation", b"", "is empty"),
        ("test", b"text,label\n", "has no examples"),
        ("test", b"text,label\na,b,c\n", "3 values, where 2 are expected"),
        ("test", b"other,label\na,b\n", "has other columns"),
    ],
)
def test_a_bad_file_beside_it_is_left_out(tmp_path, name, content, expected):
    tiny.write_csv(tmp_path / "train.csv", ROWS)
    (tmp_path / f"{name}.csv").write_bytes(content)
    read = find(str(tmp_path))
    assert read.data.num_rows == len(ROWS) and not read.beside
    [note] = read.notes
    assert f"{name}.csv" in note and expected in note and "it is not used" in note


def test_a_file_beside_it_has_its_own_encoding(tmp_path):
    rows = [(f"{text} café naïve", label) for text, label in ROWS]
    for name, encoding in (("train", "cp1252"), ("validation", "utf-8"), ("test", "cp1252")):
        lines = [",".join(row) for row in (("text", "label"), *rows)]
        (tmp_path / f"{name}.csv").write_bytes("\n".join(lines).encode(encoding))
    read = find(str(tmp_path))
    assert read.options["encoding"] == read.beside["test"]["encoding"] == "cp1252"
    assert "encoding" not in read.beside["validation"]


def test_files_beside_one_without_a_header_line_have_none_either(tmp_path):
    for name, rows in (("train", ROWS), ("test", ROWS[:3])):
        table(tmp_path / f"{name}.csv", None, rows)
    read = find(str(tmp_path))
    assert read.beside["test"]["names"] == read.options["names"] == ["column_1", "column_2"]


@pytest.mark.parametrize("codes", [(-1, 0, 1), (0, 1, 7), (7, 13, 42), (100, 200, 300)])
@pytest.mark.parametrize("name", ["label", "column"])
def test_codes_of_topics_are_classes(tmp_path, name, codes):
    w, phrases = Writer(1), ("invoice", "parcel", "password")
    rows = [(w.text([f"look at my {phrases[number % 3]}"], 1, 2, 0.8), codes[number % 3]) for number in range(180)]
    read = find(str(table(tmp_path / "topics.csv", ("text", name), rows)))
    found = understand(columns_of(read.data))
    assert (found.task, found.options) == ("classification", {"text": "text", "label": name})


def test_codes_of_many_topics_are_classes_whatever_they_begin_with(tmp_path):
    w, codes = Writer(3), list(range(101, 121))
    w.rng.shuffle(codes)
    rows = [(w.text([f"look at subject{number % 20}"], 1, 2, 0.85), codes[number % 20]) for number in range(400)]
    found = understand(columns_of(find(str(table(tmp_path / "topics.csv", ("text", "topic"), rows))).data))
    assert (found.task, found.options) == ("classification", {"text": "text", "label": "topic"})


@pytest.mark.parametrize("name", ["value", "rating", "target", "label"])
def test_a_scale_with_gaps_holds_numbers(tmp_path, name):
    w, levels = Writer(3), [["awful", "broke"], ["poor", "bad"], ["fine", "okay"], ["great", "superb"], ["best"]]
    rows = []
    for number in range(300):
        level = number % 5
        near = [each for each in (level - 1, level, level, level, level + 1) if 0 <= each < 5]
        rows.append((w.text(levels[w.any(near)], 1, 2, 0.95), level * 25))
    found = understand(columns_of(find(str(table(tmp_path / "scale.csv", ("text", name), rows))).data))
    assert (found.task, found.options) == ("regression", {"text": "text", "target": name})


@pytest.mark.parametrize("body", ["", "\nand what follows of number {}"])
def test_a_folder_of_one_class_holds_texts(tmp_path, body):
    (tmp_path / "topics" / "sport").mkdir(parents=True)
    for number, (text, _) in enumerate(ROWS):
        (tmp_path / "topics" / "sport" / f"{number}.txt").write_text(f"{text}{body.format(number)}\n")
    found = understand(columns_of(find(str(tmp_path / "topics")).data))
    assert (found.task, found.options) == ("language", {"text": "text"})
    assert "one class only" in found.why and "stands within 'text'" in found.left["title"]


def test_an_answer_that_stands_in_its_question_is_still_one(tmp_path):
    rows = [(f"{one}. {two}", one) for (one, _), (two, _) in itertools.pairwise(ROWS)]
    found = understand(columns_of(find(str(table(tmp_path / "rows.csv", ("article", "summary"), rows))).data))
    assert (found.task, found.options) == ("chat", {"prompt": "article", "completion": "summary"})
