"""Labels that look alike, labels that are none, and how they are shown."""

import pytest

from finetune.data.labels import label_lines, lookalikes, natural, shown_beside, visible


@pytest.mark.parametrize(
    "first, second",
    [
        ("sport", "Sport"),
        ("sport", "sport "),
        ("sport", " sport"),
        ("sci fi", "scifi"),
        ("sci fi", "sci  fi"),
        ("sport", "spo\u200brt"),  # zero-width space
        ("sport", "\ufeffsport"),  # byte order mark
        ("sci fi", "sci\u00a0fi"),  # no-break space
        ("sport", "spo\u00adrt"),  # soft hyphen
        ("sport", "\u200esport"),  # left-to-right mark
        ("sport", "\u202asport\u202c"),  # embedding
        ("sport", "\u2066sport\u2069"),  # isolate
        ("sport", "sport\u2060"),  # word joiner
        ("sport", "sport\ufe0f"),  # variation selector
        ("sport", "sport\x00"),
        ("sport", "sport\n"),
        ("sport", "sport\u3164"),  # Hangul filler
        ("café", "cafe\u0301"),  # NFC and NFD
        ("office", "o\ufb03ce"),  # a ligature: NFKC
        ("A", "\uff21"),  # full width
        ("2", "\u00b2"),
        ("straße", "STRASSE"),
        ("1", "1.0"),
        ("1", "01"),
        ("10", "1e1"),
        ("true", "TRUE"),
        ("e-mail", "e\u2011mail"),
        ("cop", "\u0441\u043e\u0440"),  # Cyrillic
    ],
)
def test_labels_that_look_alike(first, second):
    [group] = lookalikes([first, second, "another"])
    assert set(group) == {first, second}
    beside = [shown_beside(label, group) for label in group]
    assert beside[0] != beside[1] and all(text == text.strip() and text.isprintable() for text in beside)


@pytest.mark.parametrize(
    "labels",
    [["1", "10", "-1"], ["a", "b"], ["1.0", "1.5"], ["C", "C++", "C#"], ["中文", "日文"], ["1_0", "10"], ["+", "-"]],
)
def test_labels_that_differ(labels):
    assert lookalikes(labels) == []


def test_what_cannot_be_seen_is_shown_as_code_points():
    assert visible("a\u200bb") == "a<U+200B>b"
    assert visible(" a b\u00a0") == "<U+0020>a b<U+00A0>"
    assert visible("naïve 中文") == "naïve 中文"
    assert shown_beside("cafe\u0301", ["cafe\u0301", "café"]) == "cafe<U+0301>"
    assert shown_beside("中文 ", ["中文 ", "中文"]) == "中文<U+0020>"


def test_labels_are_always_listed_with_their_counts():
    lines = label_lines({"train": {"2": 3, "10": 1}, "test": {"2": 1, "x": 1200}}, "label")
    assert lines == ["labels: 3 in column 'label', with their examples in train/test: 2 3/1, 10 1/0, x 0/1,200"]


def test_long_lists_are_the_commonest_and_the_rarest():
    counts = {f"intent {number:03}": 1000 - number for number in range(150)}
    [line] = label_lines({"train": counts}, "intent")
    assert line.startswith("labels: 150 in column 'intent'") and len(line) < 500
    assert "intent 000 1,000" in line and "intent 149 851" in line and "intent 075" not in line


@pytest.mark.parametrize(
    "label", ["-1", "None", "NULL", "unknown", "N/A", "<NA>", "?", "-", "Not available", "-1.0", "nil"]
)
def test_what_may_be_no_label_is_told(label):
    _, line = label_lines({"train": {"a": 2, "b": 2, label: 5}}, "label")
    assert f"the label '{label}' (5 examples)" in line and "stands for a missing one" in line


def test_an_invisible_label_and_a_header_among_the_labels_are_told():
    _, *lines = label_lines({"train": {"a": 2, "\u200b": 5, "topic": 1}}, "topic")
    assert any("'<U+200B>' (5 examples)" in line and "nothing of it can be seen" in line for line in lines)
    assert any("the column's name" in line for line in lines)


def test_no_label_of_a_usual_kind_is_suspected():
    for labels in (["0", "1"], ["neg", "pos"], ["entailment", "neutral"], ["other", "no"], ["-2", "2"], ["A", "B"]):
        assert len(label_lines({"train": dict.fromkeys(labels, 2)}, "label")) == 1


def test_numbers_stand_in_their_own_order_before_what_is_none():
    labels = ["a", "--5", "10", "-", "9", "-3", "", "1.5", "\u0663", "\u00b2"]
    assert sorted(labels, key=natural)[:4] == ["-3", "\u0663", "9", "10"]
