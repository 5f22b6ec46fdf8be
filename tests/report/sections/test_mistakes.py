"""What was got wrong: confusions and hardest examples, from prediction stores whose answers are known."""

import html
import json
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.report.blocks import Fold, Panels, Table
from finetune.report.drawing.confusion import Confusion, confusion, label_table, matrix, pair_table
from finetune.report.html import render
from finetune.report.reading import read_study
from finetune.report.results import results_of
from finetune.report.sections import mistakes
from tests.report.test_page import EVIL, Wellformed

PETS = ("cat", "dog", "fish")


def column(texts):
    return pa.array(texts).dictionary_encode()


def counted(*runs, labels=PETS):
    """The confusion of runs, each a list of (true, predicted)."""
    return confusion("full", 0, labels, [tuple(map(column, zip(*run, strict=True))) for run in runs])


def write(made, variant, seed, answers, labels=PETS, task="test", scores=None):
    """A run whose ``answers`` are (predicted, true), stored out of order."""
    said, true = zip(*answers, strict=True)
    right = [float(one == other) for one, other in zip(said, true, strict=True)] if scores is None else scores
    folder = made.path / variant / f"seed-{seed}"
    if not (folder / "result.json").exists():
        made.run(variant, seed, 0.5)
    result = json.loads((folder / "result.json").read_text())
    result["scores"][f"{task}/accuracy"] = float(np.nan_to_num(np.mean(right)))
    (folder / "result.json").write_text(json.dumps(result))
    order = np.random.default_rng(seed).permutation(len(said))
    n = len(said)
    columns = {"example": np.arange(n), "prediction": said, "reference": true, "score": right}
    more = {"loss": np.zeros(n), "weight": np.ones(n), "probabilities": pa.nulls(n, pa.list_(pa.float32()))}
    table = (
        pa.table({**columns, **more})
        .take(pa.array(order))
        .replace_schema_metadata({"labels": json.dumps(labels), "key": ""})
    )
    pq.write_table(table, folder / "predictions" / f"{task}.parquet")


def keep(made, inputs, task="test", references=None, groups=None):
    """The study's own table of what is held out, out of order."""
    n = len(inputs)
    columns = {
        "example": pa.array(range(n), pa.int64()),
        "input": pa.array(inputs, pa.string()),
        "reference": pa.array(references or [None] * n, pa.string()),
        "group": pa.array(groups or [None] * n, pa.string()),
    }
    path = made.path / "examples" / f"{task}.parquet"
    path.parent.mkdir(exist_ok=True)
    pq.write_table(pa.table(columns).take(pa.array(list(reversed(range(n))))), path)


def told(made):
    study = read_study(made.path)
    return mistakes.section(study, results_of(study))


def walk(blocks):
    for block in blocks:
        yield block
        if isinstance(block, Fold):
            yield from walk(block.blocks)


def hardest_of(section):
    [table] = [block for block in walk(section.blocks) if isinstance(block, Table) and "Hardest" in block.caption]
    return table


def cells(table):
    return [[cell.text for cell in row] for row in table.rows]


@pytest.fixture
def pets(fabricator):
    """Two variants of two seeds over five animals: the fish is always a cat, one dog is wrong in one variant."""
    made = fabricator([1, 2], {"full": "full", "lora": "adapter"}, labels=PETS, examples=5)
    true = ["cat", "dog", "dog", "fish", "cat"]
    for seed, said in ((1, ["cat", "dog", "dog", "cat", "cat"]), (2, ["cat", "dog", "dog", "cat", "dog"])):
        write(made, "full", seed, list(zip(said, true, strict=True)))
    for seed, said in ((1, ["cat", "cat", "dog", "cat", "cat"]), (2, ["cat", "cat", "dog", "dog", "cat"])):
        write(made, "lora", seed, list(zip(said, true, strict=True)))
    keep(made, ["a cat sat", "one dog", "two dogs", "a fish\n swam", "x" * 300])
    return made


# --- confusions


def test_counts_are_means_over_runs():
    found = counted(
        [("cat", "cat"), ("dog", "cat"), ("fish", "fish")], [("cat", "dog"), ("dog", "cat"), ("fish", "fish")]
    )
    assert found.counts.tolist() == [[0.5, 0.5, 0], [1, 0, 0], [0, 0, 1]]
    assert found.support.tolist() == [1, 1, 1] and found.shares[1].tolist() == [1, 0, 0]
    assert found.taken_for(1) == "cat 100\u202f%" and found.taken_for(2) == ""


@given(st.lists(st.tuples(st.sampled_from(PETS), st.sampled_from(PETS)), min_size=1), st.permutations(PETS))
def test_every_example_is_counted_once_whatever_the_labels_order(pairs, order):
    found, other = counted(pairs), counted(pairs, labels=tuple(order))
    assert found.counts.sum() == len(pairs)
    places = [order.index(label) for label in PETS]
    assert (other.counts[np.ix_(places, places)] == found.counts).all()
    assert np.isclose(found.shares.sum(axis=1), found.support > 0).all()


def test_a_label_without_examples_has_no_share_and_stands_last():
    found = counted([("cat", "cat"), ("dog", "cat")])
    assert found.shares[2].tolist() == [0, 0, 0]
    assert cells(table := label_table([found])) == [
        ["dog", "1", "0\u202f%"],
        ["cat", "1", "100\u202f%"],
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
    assert cells(pair_table([found])) == [["cat", "dog", "50\u202f%"], ["fish", "cat", "100\u202f%"]]


def test_the_matrix_shows_percentages_by_row_and_says_them():
    drawn = str(
        matrix(counted([("cat", "cat")] * 199 + [("cat", "dog")] + [("dog", "fish"), ("fish", "fish")]), "it", 8)
    )
    numbers = re.findall(r'class="number">([^<]*)<', drawn)
    assert numbers == ["100", "·", "100", "100"]  # 199 of 200 are 99.5 %, and a cell that never happens is empty
    assert "cat: 100\u202f% right, taken for dog 0.5\u202f%" in drawn and drawn.count('class="bad"') == 6


@pytest.mark.parametrize("size", [2, 4, 5, 12])
def test_a_matrix_stays_inside_its_frame(size):
    labels = tuple(f"a rather long label {number}" for number in range(size))
    drawn = str(matrix(Confusion("full", 9, labels, np.ones((size, size))), "full on test", 8))
    rects = [
        [float(value) for value in found]
        for found in re.findall(r'<rect x="([\d.]+)" y="([\d.]+)" width="([\d.]+)"', drawn)
    ]
    assert len(rects) == size**2 and 'class="panel c1"' in drawn
    assert all(x >= 100 and x + width <= 360 for x, _, width in rects)
    assert float(re.search(r'viewBox="0 0 360 (\d+)', drawn)[1]) >= max(y for _, y, _ in rects) + 28


# --- hardest examples


def test_the_hardest_are_wrong_in_most_runs_of_most_variants(pets):
    table = hardest_of(told(pets))
    assert cells(table) == [["3", "a fish swam", "fish", "cat", "0\u202f%", "0\u202f%"]]
    assert table.rows[0][3].small == "3 of 4"
    assert [column.title for column in table.columns][:4] == ["example", "text", "wanted", "most often said"]


def test_half_of_the_runs_or_of_the_variants_are_not_most():
    means = np.array([[1.0, 0.5, 0.0, 0.0], [1.0, 0.0, 0.4, 0.5]])
    assert mistakes.hardest(means, right_or_wrong=True).tolist() == [2]
    assert mistakes.hardest(means, right_or_wrong=False).tolist() == [2, 1, 3, 0]


def test_the_list_is_short_and_ties_stand_in_order():
    assert mistakes.hardest(np.zeros((2, 100)), right_or_wrong=True).tolist() == list(range(20))


def test_long_texts_are_cut_and_stand_on_one_line():
    assert mistakes.cut("a\n\n b\tc") == "a b c"
    assert len(mistakes.cut("word " * 100)) == 200 and mistakes.cut("word " * 100).endswith("…")


def test_nothing_is_hard_for_all(fabricator):
    made = fabricator([1], {"full": "full"}, labels=PETS, examples=2)
    write(made, "full", 1, [("cat", "cat"), ("dog", "dog")])
    [words] = [
        block.blocks[0].text for block in told(made).blocks if isinstance(block, Fold) and "Hardest" in block.title
    ]
    assert words == "No example is got wrong by most runs of most variants."


def chats(fabricator, example_score="rouge_l", answers=(("yes", "yes"), ("no", "maybe"), ("", "why"))):
    made = fabricator([1, 2], {"full": "full"}, labels=(), examples=3)
    for seed, scores in ((1, [1.0, 0.2, 0.0]), (2, [0.8, 0.4, 0.1])):
        write(made, "full", seed, list(answers), labels=(), scores=scores)
    data = made.data()
    data["tasks"][0]["example_score"] = example_score
    made.json("data.json", data)
    return made


def test_texts_are_listed_by_their_mean_score(fabricator):
    made = chats(fabricator)
    keep(made, ["is it?", "perhaps?", "because?"], references=["yes", "maybe", "why"])
    section = told(made)
    assert not [block for block in section.blocks if isinstance(block, Panels)]
    assert cells(hardest_of(section)) == [
        ["2", "because?", "why", "nothing", "5.0\u202f%"],
        ["1", "perhaps?", "maybe", "no", "30.0\u202f%"],
        ["0", "is it?", "yes", "–", "90.0\u202f%"],
    ]


def test_texts_that_were_not_kept_are_not_shown(fabricator):
    made = chats(fabricator)
    keep(made, [None] * 3)
    table = hardest_of(told(made))
    assert cells(table) == [["2", "5.0\u202f%"], ["1", "30.0\u202f%"], ["0", "90.0\u202f%"]]
    assert table.notes == ["The texts were not kept (scoring.keep_texts: false)."]


def test_the_group_stands_under_the_number(pets):
    keep(pets, ["text"] * 5, groups=["anna", "ben", "anna", "carl", "ben"])
    assert hardest_of(told(pets)).rows[0][0].small == "carl"


def test_labels_are_shown_without_their_texts(pets):
    keep(pets, [None] * 5, references=["cat", "dog", "dog", "fish", "cat"])
    assert cells(hardest_of(told(pets))) == [["3", "fish", "cat", "0\u202f%", "0\u202f%"]]


def test_a_study_without_the_table_shows_row_numbers_and_labels(pets):
    (pets.path / "examples/test.parquet").unlink()
    assert cells(hardest_of(told(pets))) == [["3", "fish", "cat", "0\u202f%", "0\u202f%"]]


def test_where_less_is_better_the_largest_loss_is_hardest(fabricator):
    made = chats(fabricator, "loss", answers=(("", ""),) * 3)
    keep(made, ["one", "two", "three"])
    assert cells(hardest_of(told(made))) == [["0", "one", "0.900"], ["1", "two", "0.300"], ["2", "three", "0.050"]]


# --- the section


def test_the_best_variant_stands_first_and_other_tasks_are_closed(fabricator):
    made = fabricator([1], {"bad": "full", "good": "full"}, labels=PETS, tasks=("test", "tweets"), examples=3)
    true = ["cat", "dog", "fish"]
    for task in ("tweets", "test"):
        write(made, "bad", 1, list(zip(["dog", "cat", "cat"], true, strict=True)), task=task)
        write(made, "good", 1, list(zip(true, true, strict=True)), task=task)
    section = told(made)
    drawn = section.blocks[0]
    assert ["good on test" in str(drawn.drawings[0]), "bad on test" in str(drawn.drawings[1])] == [True, True]
    assert section.blocks[-1].title == "Mistakes on tweets" and isinstance(section.blocks[-1], Fold)


def test_many_labels_have_pairs_and_no_drawing(fabricator):
    labels = tuple(f"label {number}" for number in range(13))
    made = fabricator([1], {"full": "full"}, labels=labels, examples=13)
    write(made, "full", 1, [("label 0", label) for label in labels], labels=labels)
    section = told(made)
    assert not [block for block in section.blocks if isinstance(block, Panels)]
    assert len(next(block for block in section.blocks if isinstance(block, Table)).rows) == 12


def test_of_many_labels_only_the_best_variants_are_drawn(fabricator):
    labels = tuple(f"label {number}" for number in range(12))
    made = fabricator([1], {name: "full" for name in "abcd"}, labels=labels, examples=12)
    for place, name in enumerate("abcd"):
        write(made, name, 1, [(label if n < 3 * place else "label 0", label) for n, label in enumerate(labels)], labels)
    drawn = next(block for block in told(made).blocks if isinstance(block, Panels))
    assert len(drawn.drawings) == 2 and "Of 4 variants only those with the best scores" in drawn.caption


def test_runs_of_other_rows_are_left_out(pets):
    write(pets, "lora", 2, [("dog", "fish")] * 4)
    found = mistakes.answers_of(study := read_study(pets.path), results_of(study), results_of(study)["tasks"][0])
    assert {each.variant: len(each.stored) for each in found} == {"full": 2, "lora": 1}


def test_splits_of_their_own_have_no_hardest_examples(pets):
    resolved = (pets.path / "resolved.yaml").read_text().replace("- init", "- split\n- init")
    (pets.path / "resolved.yaml").write_text(resolved)
    words = [
        block.blocks[0].text for block in told(pets).blocks if isinstance(block, Fold) and "Hardest" in block.title
    ]
    assert words == ["Each seed has its own held-out examples, so none of them was scored by all."]


def test_nothing_stored_is_no_section(fabricator):
    made = fabricator([1], {"full": "full"})
    made.run("full", 1, None, "error", "out of memory")
    assert told(made) is None


def test_a_run_whose_scores_are_no_numbers_is_left_out(pets):
    write(pets, "full", 1, [("cat", "cat")] * 5, scores=[np.nan] * 5)
    study = read_study(pets.path)
    found = mistakes.answers_of(study, results_of(study), results_of(study)["tasks"][0])
    assert {each.variant: len(each.stored) for each in found} == {"full": 1, "lora": 2}


def test_hostile_texts_and_labels_are_escaped(fabricator):
    from finetune.report.content import document

    labels = (EVIL, "plain")
    made = fabricator([1, 2], {"full": "full"}, labels=labels, name="study", examples=2)
    for seed in (1, 2):
        write(made, "full", seed, [("plain", EVIL), ("plain", "plain")], labels=labels)
    keep(made, [f"{EVIL}\x1b[31m\u202e", "fine"])
    study = read_study(made.path)
    page = render(document(study, results_of(study)))
    parser = Wellformed()
    parser.feed(page)
    assert parser.open == [] and page.count("<script") <= 1 and "alert" in html.unescape(page)
    assert "<script>alert" not in page and "\x1b" not in page and "\u202e" not in page
    assert not [name for name, _ in parser.attributes if name.startswith("on")]


# --- groups


def test_groups_are_numbered_in_order_of_examples(pets):
    keep(pets, ["a"] * 5, groups=["anna", "ben", "anna", "carl", "ben"])
    assert read_study(pets.path).groups("test").tolist() == [0, 1, 0, 2, 1]
    keep(pets, ["a"] * 5)
    assert read_study(pets.path).groups("test") is None and read_study(pets.path).groups("other") is None
