"""What was got wrong, on the page."""

import html

import numpy as np

from finetune.report.blocks import Fold, Panels, Table
from finetune.report.html import render
from finetune.report.sections.mistakes import cut, sections
from tests.report.test_page import EVIL, Wellformed
from tests.results.stores import PETS, answer, keep, read


def told(made):
    [section] = sections(*read(made))
    return section


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


def test_the_hardest_are_wrong_in_most_runs_of_most_variants(pets):
    table = hardest_of(told(pets))
    assert cells(table) == [["3", "a fish swam", "fish", "cat", "0\u202f%", "0\u202f%"]]
    assert table.rows[0][3].small == "3 of 4"
    assert [column.title for column in table.columns][:4] == ["example", "text", "wanted", "most often said"]


def test_long_texts_are_cut_and_stand_on_one_line():
    assert cut("a\n\n b\tc") == "a b c"
    assert len(cut("word " * 100)) == 200 and cut("word " * 100).endswith("…")


def test_nothing_is_hard_for_all(fabricator):
    made = fabricator([1], {"full": "full"}, labels=PETS, examples=2)
    answer(made, "full", 1, [("cat", "cat"), ("dog", "dog")])
    [words] = [
        block.blocks[0].text for block in told(made).blocks if isinstance(block, Fold) and "Hardest" in block.title
    ]
    assert words == "No example is got wrong by most runs of most variants."


def chats(fabricator, example_score="rouge_l", answers=(("yes", "yes"), ("no", "maybe"), ("", "why"))):
    made = fabricator([1, 2], {"full": "full"}, labels=(), examples=3)
    for seed, scores in ((1, [1.0, 0.2, 0.0]), (2, [0.8, 0.4, 0.1])):
        answer(made, "full", seed, list(answers), labels=(), scores=scores)
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


def answering(made, answer):
    data = made.data()
    data["tasks"][0] |= {"answer": answer, "example_score": "loss" if answer == "number" else "exact_match"}
    made.json("data.json", data)


def test_numbers_are_shown_without_their_texts_and_are_no_classes(fabricator):
    made = chats(fabricator, answers=(("1.5", "1"), ("2", "4"), ("0", "0")))
    answering(made, "number")
    keep(made, [None] * 3)
    section = told(made)
    assert not [block for block in section.blocks if isinstance(block, Panels)]
    table = hardest_of(section)
    assert [row[:3] for row in cells(table)] == [["0", "1", "1.5"], ["1", "4", "2"], ["2", "0", "–"]]
    assert [column.title for column in table.columns][:3] == ["example", "wanted", "said"]


def test_the_hardest_numbers_are_those_with_the_largest_errors(fabricator):
    """Said in full, shown with four digits: the median over runs, and how far they are apart."""
    made = fabricator([1, 2], {"full": "full"}, labels=(), examples=3)
    for seed, said in ((1, "1.23456789"), (2, "-4.0")):
        pairs = [("0.5", "0.5"), (said, "7.5"), ("2.25", "2.0")]
        scores = [abs(float(one) - float(other)) for one, other in pairs]
        answer(made, "full", seed, pairs, labels=(), scores=scores)
    data = made.data()
    data["tasks"][0] |= {"answer": "number", "example_score": "mae"}
    made.json("data.json", data)
    keep(made, ["a", "b", "c"])
    table = hardest_of(told(made))
    assert cells(table)[:2] == [
        ["1", "b", "7.5", "\N{MINUS SIGN}1.383", "8.88"],
        ["2", "c", "2.0", "2.25", "0.250"],
    ]
    assert table.rows[0][3].small == "from \N{MINUS SIGN}4 to 1.235" and table.columns[4].help.startswith("MAE")


def test_several_numbers_in_one_answer_are_shown_as_they_were_said(fabricator):
    made = chats(fabricator, answers=(("1 2", "1 3"), ("2 0", "4 1"), ("0 0", "0 0")))
    answering(made, "number")
    keep(made, [None] * 3)
    assert [column.title for column in hardest_of(told(made)).columns][2] == "most often said"


def test_several_labels_at_once_are_not_taken_for_each_other(fabricator):
    """Though the store names its classes: an answer is right in part, and each has many."""
    made = fabricator([1], {"full": "full"}, labels=PETS, examples=3)
    answer(made, "full", 1, [("cat dog", "cat"), ("", "dog fish"), ("fish", "fish")], scores=[0.5, 0.0, 1.0])
    answering(made, "labels")
    section = told(made)
    assert not [block for block in section.blocks if isinstance(block, Panels)]
    assert [row[0] for row in cells(hardest_of(section))] == ["1", "0", "2"], "the worst first, none being wrong"


SETS = [('["cat"]', '["cat", "dog"]'), ('["cat"]', "[]"), ("[]", "[]"), ('["dog", "cat"]', '["dog", "fish"]')]


def test_what_is_missing_in_a_set_and_what_is_superfluous_are_told(fabricator):
    made = fabricator([1, 2], {"full": "full"}, labels=PETS, examples=4)
    for seed in (1, 2):
        answer(made, "full", seed, SETS, scores=[0.0, 0.0, 1.0, 0.0])
    answering(made, "labels")
    section = told(made)
    assert [row[1:3] for row in cells(hardest_of(section))] == [
        ["cat, dog", "cat (missing: dog)"],
        ["no label", "cat (superfluous: cat)"],
        ["dog, fish", "dog, cat (missing: fish; superfluous: cat)"],
        ["no label", "–"],
    ]
    [table] = [block for block in walk(section.blocks) if isinstance(block, Table) and "Hardest" not in block.caption]
    assert cells(table) == [
        ["cat", "1", "100\u202f%"],
        ["dog", "2", "50\u202f%"],
        ["fish", "1", "0\u202f%"],
    ]
    assert [row[2].small for row in table.rows] == ["and 2 others", "", ""]


def test_of_150_labels_that_are_confused_few_are_listed(fabricator):
    labels = tuple(f"a rather long name of intent number {number:03d}" for number in range(150))
    made = fabricator([1, 2], {"full": "full", "lora": "adapter"}, labels=labels, examples=600)
    random = np.random.default_rng(0)
    for variant in made.variants:
        for seed in (1, 2):
            true = [labels[number % 150] for number in range(600)]
            said = [labels[random.integers(150)] if random.random() < 0.3 else label for label in true]
            answer(made, variant, seed, list(zip(said, true, strict=True)), labels=labels)
    section = told(made)
    assert not [block for block in walk(section.blocks) if isinstance(block, Panels)], "no matrix of 22,500 cells"
    pairs, by_label = [block for block in walk(section.blocks) if isinstance(block, Table)][:2]
    assert len(pairs.rows) == 20 and len(by_label.rows) == 50
    assert by_label.notes == ["100 more labels are more often right."]
    assert "of 150 labels" in section.blocks[0].text


def test_the_cluster_stands_under_the_number(pets):
    keep(pets, ["text"] * 5, clusters=["anna", "ben", "anna", "carl", "ben"])
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


def test_the_best_variant_stands_first_and_other_tasks_are_closed(fabricator):
    made = fabricator([1], {"bad": "full", "good": "full"}, labels=PETS, tasks=("test", "tweets"), examples=3)
    true = ["cat", "dog", "fish"]
    for task in ("tweets", "test"):
        answer(made, "bad", 1, list(zip(["dog", "cat", "cat"], true, strict=True)), task=task)
        answer(made, "good", 1, list(zip(true, true, strict=True)), task=task)
    section = told(made)
    drawn = section.blocks[0]
    assert ["good on test" in str(drawn.drawings[0]), "bad on test" in str(drawn.drawings[1])] == [True, True]
    assert section.blocks[-1].title == "Mistakes on tweets" and isinstance(section.blocks[-1], Fold)


def test_many_labels_have_pairs_and_no_drawing(fabricator):
    labels = tuple(f"label {number}" for number in range(13))
    made = fabricator([1], {"full": "full"}, labels=labels, examples=13)
    answer(made, "full", 1, [("label 0", label) for label in labels], labels=labels)
    section = told(made)
    assert not [block for block in section.blocks if isinstance(block, Panels)]
    assert len(next(block for block in section.blocks if isinstance(block, Table)).rows) == 12


def test_of_many_labels_only_the_best_variants_are_drawn(fabricator):
    labels = tuple(f"label {number}" for number in range(12))
    made = fabricator([1], {name: "full" for name in "abcd"}, labels=labels, examples=12)
    for place, name in enumerate("abcd"):
        answer(
            made, name, 1, [(label if n < 3 * place else "label 0", label) for n, label in enumerate(labels)], labels
        )
    drawn = next(block for block in told(made).blocks if isinstance(block, Panels))
    assert len(drawn.drawings) == 2 and "Of 4 variants only those with the best scores" in drawn.caption


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
    assert sections(*read(made)) == []


def test_hostile_texts_and_labels_are_escaped(fabricator):
    from finetune.report.content import document

    labels = (EVIL, "plain")
    made = fabricator([1, 2], {"full": "full"}, labels=labels, name="study", examples=2)
    for seed in (1, 2):
        answer(made, "full", seed, [("plain", EVIL), ("plain", "plain")], labels=labels)
    keep(made, [f"{EVIL}\x1b[31m\u202e", "fine"])
    page = render(document(*read(made)))
    parser = Wellformed()
    parser.feed(page)
    assert parser.open == [] and page.count("<script") <= 1 and "alert" in html.unescape(page)
    assert "<script>alert" not in page and "\x1b" not in page and "\u202e" not in page
    assert not [name for name, _ in parser.attributes if name.startswith("on")]


def test_colours_begin_again_after_the_eighth_variant(fabricator):
    made = fabricator([1], {f"v{number}": "full" for number in range(9)}, labels=("a", "b"), examples=2)
    for variant in made.variants:
        answer(made, variant, 1, [("a", "a"), ("a", "b")], labels=("a", "b"))
    drawn = next(block for block in told(made).blocks if isinstance(block, Panels)).drawings
    assert [f"panel c{number % 8}" in str(drawing) for number, drawing in enumerate(drawn)] == [True] * 9
