"""csv, tsv, jsonl, json and parquet: what is read, and what is refused with its line."""

import math

import pyarrow as pa
import pyarrow.parquet
import pytest

AT = "data.train.path"


# --- csv


def test_csv_with_quotes_commas_and_line_ends(load):
    data = load("a.csv", 'text,label\n"one, two","x"\n"line\nend ""quoted""",y\n')
    assert list(data["text"]) == ["one, two", 'line\nend "quoted"']
    assert list(data["label"]) == ["x", "y"]
    assert list(data["example"]) == [0, 1]


@pytest.mark.parametrize("value", ["0012", "+5", "NA", "null", "None", "true", "2020-01-31", "1,000", "0x1F", "", "-"])
def test_csv_keeps_text_that_looks_like_something_else(load, value):
    data = load("a.csv", f'text,label\n"{value}",a\nword,b\n')
    assert list(data["text"]) == [value, "word"]


@pytest.mark.parametrize("value", ["0012", "+5", "1_000", "12 ", "1234567890123456789012", "1.", ".5", "2020-01-31"])
def test_csv_column_of_text_that_is_not_plain_numbers(load, value):
    assert list(load("a.csv", f"code,label\n{value},a\n{value},b\n")["code"]) == [value, value]


def test_csv_recognises_plain_numbers(load):
    data = load("a.csv", "whole,decimal,mixed\n1,0.5,1\n-20,1e-05,2.5\n0,3,0\n")
    assert list(data["whole"]) == [1, -20, 0] and data.features["whole"].dtype == "int64"
    assert list(data["decimal"]) == [0.5, 1e-5, 3.0]
    assert list(data["mixed"]) == [1.0, 2.5, 0.0]


def test_csv_number_column_far_down_is_text_after_all(load):
    rows = "".join(f"{number},x\n" for number in range(500))
    data = load("a.csv", "code,label\n" + rows + "A1,x\n")
    assert data[499]["code"] == "499" and data[500]["code"] == "A1"


def test_csv_gaps_and_nan_survive_among_numbers(load):
    data = load("a.csv", "text,label,score\na,1,0.5\nb,,NaN\nc,0,nan\n")
    assert list(data["label"]) == [1, None, 0]
    assert data["score"][0] == 0.5 and all(math.isnan(value) for value in data["score"][1:])


def test_csv_column_without_any_value_is_empty_text(load):
    assert list(load("a.csv", "text,label\na,\nb,\n")["label"]) == ["", ""]


def test_csv_without_header(load):
    data = load("stsb.csv", "A plane.,A jet.,5.0\nA man.,A dog.,0.25\n", names=["left", "right", "score"])
    assert data[1] == {"left": "A man.", "right": "A dog.", "score": 0.25, "example": 1}


def test_csv_skips_blank_lines_and_reads_windows_line_ends(load):
    assert list(load("a.csv", "text,label\r\n\r\na,1\r\n\r\n")["text"]) == ["a"]


@pytest.mark.parametrize(
    "above", ["\n", "\n\n\n", "\r\n\r\n", "\r\r", "  \n", ",\n", " , ,\r\n\n", '"",""\n', '"\n",\n']
)
def test_csv_lines_without_a_name_above_the_header_are_no_rows(load, refused, above):
    data = load("a.csv", f"{above}text,label\na,1\n\nb,2\n")
    assert list(data["text"]) == ["a", "b"] and list(data["label"]) == [1, 2]
    with refused(AT, "3 values, where 2 are expected") as seen:
        load("b.csv", f"{above}text,label\na,1,2\n")
    lines = len(f"{above}.".splitlines())
    assert seen.problem.where.endswith(f"b.csv:{lines + 1}")


def test_csv_without_any_name(load, refused):
    with refused(AT, "no line at the beginning", "`names`"):
        load("a.csv", ",\n,\n")
    assert list(load("b.csv", "\n\n,\na,1\n", names=["text", "label"])["text"]) == ["", "a"]


def test_csv_unnamed_index_column_gets_a_name(load):
    assert load("a.csv", ",text\n0,a\n").column_names == ["column_1", "text", "example"]


def test_csv_row_with_wrong_number_of_values_is_named_by_line(load, refused):
    with refused(AT, "3 values, where 2 are expected") as seen:
        load("a.csv", 'text,label\n"two\nlines",x\nfine,y\na,b,c\n')
    assert seen.problem.where.endswith("a.csv:5")


def test_csv_with_names_counts_the_first_line(load, refused):
    with refused(AT, "2 values, where 3 are expected") as seen:
        load("a.csv", "a,b\n", names=["x", "y", "z"])
    assert seen.problem.where.endswith("a.csv:1")


@pytest.mark.parametrize("row", ['x,"never closed', '"never closed,x'])
def test_csv_quote_that_is_never_closed(load, refused, row):
    with refused(AT, "never closed") as seen:
        load("a.csv", f"text,label\na,b\n{row}\nc,d\ne,f\n")
    assert seen.problem.where.endswith("a.csv:3")


def test_csv_lone_quote_inside_a_value_is_text(load):
    assert list(load("a.csv", 'text,label\na 5" disk,x\n')["text"]) == ['a 5" disk']


def test_csv_header_only_empty_and_repeated_names(load, refused):
    with refused(AT, "has no examples"):
        load("a.csv", "text,label\n")
    with refused(AT, "is empty"):
        load("b.csv", "")
    with refused(AT, "is empty"):
        load("c.csv", "\n  \n")
    with refused(AT, "several columns called 'text'"):
        load("d.csv", "text,text\na,b\n")


# --- tsv


def test_tsv_has_no_quoting(load):
    data = load("rte.tsv", 'index\tsentence1\tlabel\n0\tHe said "no.\tentailment\n1\t"quoted"\tnot_entailment\n')
    assert list(data["sentence1"]) == ['He said "no.', '"quoted"']
    assert list(data["index"]) == [0, 1]


def test_tsv_lines_without_a_name_above_the_header_are_no_rows(load):
    data = load("a.tsv", "\r\n\t\r\ntext\tlabel\r\na\t1\r\n")
    assert list(data["text"]) == ["a"] and list(data["label"]) == [1]


def test_tsv_broken_row(load, refused):
    with refused(AT, "1 values, where 2 are expected") as seen:
        load("a.tsv", "text\tlabel\na\tb\nonly\n")
    assert seen.problem.where.endswith("a.tsv:3")


# --- jsonl


def test_jsonl_with_blank_lines_missing_keys_and_late_keys(load):
    data = load("a.jsonl", '{"text": "a", "label": 1}\n\n{"text": "b", "more": [1, 2]}\n\n')
    assert data[0] == {"text": "a", "label": 1, "more": None, "example": 0}
    assert data[1] == {"text": "b", "label": None, "more": [1, 2], "example": 1}


def test_jsonl_keeps_dates_and_line_separators_within_text(load):
    data = load("a.ndjson", '{"text": "2020-01-31"}\r\n{"text": "a\u2028b\\nc"}\r\n')
    assert list(data["text"]) == ["2020-01-31", "a\u2028b\nc"]


def test_jsonl_of_chat_messages(load):
    data = load(
        "a.jsonl",
        '{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}\n'
        '{"messages": [{"role": "user", "content": "Bye", "name": "Jo"}]}\n',
    )
    assert data[0]["messages"][1]["content"] == "Hello"
    assert data[1]["messages"] == [{"role": "user", "content": "Bye", "name": "Jo"}]


def test_jsonl_nan_and_null_labels_survive(load):
    text = '{{"text": "a", "label": {0}}}\n{{"text": "b", "label": NaN}}\n{{"text": "c", "label": null}}\n'
    numbers = load("a.jsonl", text.format(1))["label"]
    assert numbers[0] == 1.0 and math.isnan(numbers[1]) and numbers[2] is None
    assert list(load("b.jsonl", text.format('"x"'))["label"]) == ["x", None, None]


@pytest.mark.parametrize(
    "line, what",
    [
        ('{"text": "b", "label": ', "not valid JSON"),
        ("{'text': 'b'}", "not valid JSON"),
        ('{"text": "b"} {"text": "c"}', "Extra data"),
        ('["b", 1]', "a list, where an object"),
        ("12", "a number, where an object"),
    ],
)
def test_jsonl_broken_line_is_named(load, refused, line, what):
    with refused(AT, what, "2 more lines are broken") as seen:
        load("a.jsonl", '{"text": "a", "label": 1}\n\n' + line + '\n{"text": "d"}\n{\n[]\n')
    assert seen.problem.where.endswith("a.jsonl:3")


@pytest.mark.parametrize(
    "first, second, what",
    [
        ('"x"', "7", "holds text (line 1) and a number (line 3)"),
        ("true", "7", "holds true or false (line 1) and a number (line 3)"),
        ("[1]", '"x"', "holds a list (line 1) and text (line 3)"),
        ("1", str(10**30), "cannot be read"),
    ],
)
def test_jsonl_column_of_several_kinds(load, refused, first, second, what):
    with refused(AT, "column 'label'", what):
        load("a.jsonl", f'{{"label": {first}}}\n{{"label": null}}\n{{"label": {second}}}\n')


def test_jsonl_of_empty_objects(load, refused):
    with refused(AT, "has no examples"):
        load("a.jsonl", "{}\n{}\n")


# --- json


def test_json_list_and_single_nested_list(load):
    assert list(load("a.json", '[{"text": "a"}, {"text": "b"}]')["text"]) == ["a", "b"]
    squad = '{"version": "v2.0", "data": [{"title": "T", "paragraphs": [{"qas": [{"question": "Q?"}]}]}]}'
    assert load("squad.json", squad)[0]["paragraphs"][0]["qas"][0]["question"] == "Q?"


@pytest.mark.parametrize("content", ['{"a": 1}', '{"a": [{}], "b": [{}]}', '["a"]', "3", '[{"a": 1}, 2]'])
def test_json_of_another_shape(load, refused, content):
    with refused(AT, "not one list of objects"):
        load("a.json", content)


def test_json_broken(load, refused):
    with refused(AT, "not valid JSON") as seen:
        load("a.json", '[\n{"a": 1},\n{"a": }\n]')
    assert seen.problem.where.endswith("a.json:3")
    with refused(AT, "format: jsonl"):
        load("b.json", '{"a": 1}\n{"a": 2}\n')
    with refused(AT, "has no examples"):
        load("c.json", "[]")


# --- parquet


def test_parquet_with_categories_nulls_and_nan(tmp_path, load):
    table = pa.table(
        {"text": ["a", None], "label": pa.array(["x", "y"]).dictionary_encode(), "score": [float("nan"), 1.0]}
    )
    pyarrow.parquet.write_table(table, tmp_path / "source.parquet")
    data = load("label=z.parquet", (tmp_path / "source.parquet").read_bytes())
    assert list(data["text"]) == ["a", None]
    assert list(data["label"]) == ["x", "y"] and data.features["label"].dtype == "string"
    assert math.isnan(data["score"][0])


def test_parquet_that_is_none(load, refused):
    with refused(AT, "not a readable parquet file"):
        load("a.parquet", b"text,label\n")
    with refused(AT, "not a readable parquet file"):
        load("b.parquet", b"")


# --- encodings


def test_byte_order_mark_is_not_part_of_the_first_name(load):
    assert load("a.csv", b"\xef\xbb\xbftext,label\na,b\n").column_names == ["text", "label", "example"]
    assert load("a.jsonl", b'\xef\xbb\xbf{"text": "a"}\n').column_names == ["text", "example"]


def test_other_encodings(load):
    assert load("a.csv", "text\ncafé\n".encode("latin-1"), encoding="latin-1")["text"][0] == "café"
    assert load("a.csv", "text\ncafé\n".encode("utf-16"), encoding="utf-16")["text"][0] == "café"


def test_invalid_bytes(load, refused):
    content = "text\nfine\ncafé\n".encode("latin-1")
    with refused(AT, "0xE9", "set `encoding: cp1252`", "text fine café") as seen:
        load("a.csv", content)
    assert seen.problem.where.endswith("a.csv:3")
    assert load("a.csv", content, encoding_errors="replace")["text"][1] == "caf�"


@pytest.mark.parametrize("encoding", ["utf-9", "base64"])
def test_unknown_encoding(load, refused, encoding):
    with refused("data.train.encoding", encoding):
        load("a.csv", "text\na\n", encoding=encoding)


# --- advice that is right when followed


def test_numbers_are_shown_in_templates_as_the_file_has_them(load):
    rows = "price,label\n2.50,a\n12,b\n1e5,c\n,d\n"
    data = load("a.csv", rows, columns={"text": "costs {price}"})
    assert data["text"] == ["costs 2.50", "costs 12", "costs 1e5", None]
    assert list(data["price"]) == [2.5, 12.0, 1e5, None]


def test_tsv_is_not_advised_to_quote(load, refused):
    with refused(AT, "2 values, where 3 are expected", "cannot hold a tab") as seen:
        load("a.tsv", "a\tb\tc\n1\t2\n")
    assert "double quotes" not in seen.problem.advice


@pytest.mark.parametrize("separator, named", [(";", "';'"), ("|", "'|'"), ("\t", "tabs")])
def test_another_separator_is_named(load, refused, separator, named):
    from finetune.data.columns import require_text

    data = load("a.csv", f"text{separator}label\nwords{separator}x\n")
    with refused("task.text", f"separated by {named}"):
        require_text(data, "text", "data.train", "task.text")


def test_a_json_value_that_is_called_jsonl(load, refused):
    content = '[\n {"text": "a"},\n {"text": "b"}\n]\n'
    with refused(AT, "set `format: json`"):
        load("a.jsonl", content)
    assert list(load("a.jsonl", content, format="json")["text"]) == ["a", "b"]


def test_a_broken_json_file_is_not_called_jsonl(load, refused):
    with refused(AT, "Extra data") as seen:
        load("a.json", '[{"text": "a"}] trailing')
    assert "jsonl" not in seen.problem.advice


@pytest.mark.parametrize(
    "value", ['"\\ud800"', '"ab\\udc00cd"', '["\\ud83d"]', '{"role": "user", "content": "\\ud83d "}']
)
def test_half_of_a_surrogate_pair_is_refused_with_its_line(load, refused, value):
    rows = [f'{{"text": {value.replace(value[value.index(chr(92)) : value.index(chr(92)) + 6], "x")}}}'] * 3
    with refused(AT, "column 'text' has U+D", "half of a surrogate pair") as seen:
        load("a.jsonl", "\n".join([rows[0], "", *rows[1:], f'{{"text": {value}}}']))
    assert seen.problem.where.endswith("a.jsonl:5")
    with refused(AT, "in entry 2, half of a surrogate pair"):
        load("a.json", f'[{rows[0]}, {{"text": {value}}}]')


@pytest.mark.parametrize("row", ['{"te\\ud800xt": "a"}', '{"text": {"in\\udfffner": 1}}'])
def test_half_of_a_surrogate_pair_in_a_name(load, refused, row):
    with refused(AT, "half of a surrogate pair") as seen:
        load("a.jsonl", '{"text": null}\n' + row)
    assert seen.problem.where.endswith("a.jsonl:2")


def test_a_whole_pair_is_a_character(load):
    assert load("a.jsonl", '{"text": "\\ud83d\\ude00"}')["text"] == ["\U0001f600"]


def test_a_nul_in_a_text_is_kept(load):
    assert load("a.csv", "text,label\nsome wo\0rds,a\nmore words,b\n")["text"][0] == "some wo\0rds"
