"""Which labels are taken for which: the drawing, and the tables."""

import re

import numpy as np
import pytest

from finetune.report.drawing.confusion import label_table, matrix, pair_table, taken_for
from finetune.results.mistakes import Confusion
from tests.results.test_mistakes import counted


def cells(table):
    return [[cell.text for cell in row] for row in table.rows]


def test_what_a_label_is_most_often_taken_for():
    found = counted(
        [("cat", "cat"), ("dog", "cat"), ("fish", "fish")], [("cat", "dog"), ("dog", "cat"), ("fish", "fish")]
    )
    assert taken_for(found, 1) == "cat 100\u202f%" and taken_for(found, 2) == ""


def test_a_label_without_examples_stands_last():
    found = counted([("cat", "cat"), ("dog", "cat")])
    assert cells(table := label_table([found])) == [
        ["dog", "1", "0\u202f% [0, 100]"],
        ["cat", "1", "100\u202f% [0, 100]"],
        ["fish", "0", "–"],
    ]
    assert [row[2].small for row in table.rows] == ["as cat 100\u202f%", "", ""]


def test_many_labels_are_cut_to_the_hardest():
    labels = tuple(f"label {number}" for number in range(60))
    found = counted([(label, label if number % 2 else "label 0") for number, label in enumerate(labels)], labels=labels)
    table = label_table([found])
    assert (
        len(table.rows) == 50
        and table.rows[0][0].text == "label 2"
        and table.notes == ["10 more labels are more often right."]
    )


def test_pairs_are_listed_by_how_many_examples_they_cost():
    found = counted([("cat", "dog")] * 3 + [("fish", "cat")] + [("cat", "cat")] * 3)
    # The intervals are those of three examples of six, and of one.
    rows = [["cat", "dog", "50\u202f% [12, 88]"], ["fish", "cat", "100\u202f% [0, 100]"]]
    assert cells(pair_table([found])) == rows


def test_the_matrix_shows_percentages_by_row_and_says_them():
    drawn = str(
        matrix(counted([("cat", "cat")] * 199 + [("cat", "dog")] + [("dog", "fish"), ("fish", "fish")]), "it", 0)
    )
    numbers = re.findall(r'class="number">([^<]*)<', drawn)
    assert numbers == ["100", "·", "100", "100"]  # 199 of 200 are 99.5 %, and a cell that never happens is empty
    assert "cat: 100\u202f% right, taken for dog 0.5\u202f%" in drawn and drawn.count('class="bad"') == 6


@pytest.mark.parametrize("size", [2, 4, 5, 12])
def test_a_matrix_stays_inside_its_frame(size):
    labels = tuple(f"a rather long label {number}" for number in range(size))
    drawn = str(matrix(Confusion("full", labels, np.ones((size, size)), None, None), "full on test", 1))
    rects = [
        [float(value) for value in found]
        for found in re.findall(r'<rect x="([\d.]+)" y="([\d.]+)" width="([\d.]+)"', drawn)
    ]
    assert len(rects) == size**2 and 'class="panel c1"' in drawn
    assert all(x >= 100 and x + width <= 360 for x, _, width in rects)
    assert float(re.search(r'viewBox="0 0 360 (\d+)', drawn)[1]) >= max(y for _, y, _ in rects) + 28
