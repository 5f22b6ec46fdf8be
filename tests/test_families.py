"""The table of families: its cells, its page, and that a cell which comes out otherwise is noticed."""

import random

import pytest

from scripts._families import extras, page, rows
from scripts._families.cells import cells, fill
from scripts._families.zoo import DECODERS, FAMILIES


def test_the_table_is_as_large_as_it_says():
    assert len(FAMILIES) >= 60 and len(extras.OF) == 8 and set(extras.OF) <= set(FAMILIES)
    assert len(set(cells())) == len(cells())
    assert all((name, "chat") in cells() for name in DECODERS)


def test_a_page_says_what_was_found(tmp_path, monkeypatch):
    monkeypatch.setattr(page, "PATH", tmp_path / "FAMILIES.md")
    kinds, rng = ["works", "refused: `model.source`: is not learnt", "refused: 2. of two"], random.Random(0)
    found = {
        (name, what, strategy): rng.choice(kinds)
        for name, what in cells()
        for strategy in (rows.STRATEGIES if what in rows.TASKS else [""])
    }
    page.write(found)
    assert page.differing(found) == {}
    cell = "Llama", "chat", "full"
    found[cell] = next(kind for kind in kinds if kind != found[cell])
    assert list(page.differing(found)) == [cell]
    assert list(page.differing({("No such family", "chat", "full"): "works"}))


def test_a_cell_works(tmp_path):
    assert fill(("BERT", "classification")) == {"full": "works", "LoRA": "works"}


def test_another_model_in_the_runs_folder_is_noticed(tmp_path, monkeypatch):
    load = rows.load

    def other(*args):
        model = load(*args)
        for value in model.parameters():
            value.data *= 1.5
        return model

    monkeypatch.setattr(rows, "load", other)
    assert all(came.startswith("FAILS: Differs: loss") for came in fill(("BERT", "classification")).values())


def test_what_is_refused_is_told_without_places(tmp_path):
    came = fill(("T5", "language"))
    assert set(came) == {"full", "LoRA"} and all(why.startswith("refused: `model.source`: ") for why in came.values())
    assert str(tmp_path.parent) not in str(came)


@pytest.mark.parametrize("what", ["accumulation", "added tokens"])
def test_what_eight_families_are_tried_with_besides(what):
    assert fill(("BERT", what)) == {"": "works"}
