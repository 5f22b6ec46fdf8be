"""What sentence-transformers' files say of a model's pooling."""

import json

import pytest

from finetune.core.errors import InputError
from finetune.models import ModelOptions, declared

TRANSFORMER = {"path": "", "type": "sentence_transformers.models.Transformer"}
POOLING = {"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}
NORMALIZE = {"path": "2_Normalize", "type": "sentence_transformers.models.Normalize"}
DENSE = {"path": "2_Dense", "type": "sentence_transformers.models.Dense"}


@pytest.fixture
def said(tmp_path):
    def write(modules, **config):
        (tmp_path / "modules.json").write_text(json.dumps(modules))
        (tmp_path / "1_Pooling").mkdir(exist_ok=True)
        (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps(config))
        return declared(ModelOptions(source=str(tmp_path)))

    return write


@pytest.mark.parametrize(
    "flag, mode",
    [("cls_token", "cls"), ("mean_tokens", "mean"), ("max_tokens", "max"), ("lasttoken", "last")],
)
def test_one_mode_is_read_with_its_normalisation(said, flag, mode):
    others = dict.fromkeys(["pooling_mode_cls_token", "pooling_mode_mean_tokens"], False)
    config = {"word_embedding_dimension": 32, **others, f"pooling_mode_{flag}": True}
    found = said([TRANSFORMER, POOLING], **config)
    assert (found.mode, found.normalise) == (mode, False) and "sentence-transformers" in found.reason
    assert said([TRANSFORMER, POOLING, NORMALIZE], **config).normalise is True


def test_the_newer_word_for_it_is_read_too(said):
    assert said([TRANSFORMER, POOLING], pooling_mode="lasttoken").mode == "last"


def test_what_is_not_offered_is_left_to_cross_validation(said, tmp_path):
    assert said([TRANSFORMER, POOLING], pooling_mode_weightedmean_tokens=True) is None
    assert said([TRANSFORMER, POOLING], pooling_mode_mean_tokens=True, pooling_mode_cls_token=True) is None
    assert said([TRANSFORMER]) is None
    (tmp_path / "modules.json").unlink()
    assert declared(ModelOptions(source=str(tmp_path))) is None


def test_modules_that_are_left_out_are_named(said):
    assert "Dense left out" in said([TRANSFORMER, POOLING, DENSE], pooling_mode_mean_tokens=True).reason


def test_a_broken_file_is_named(tmp_path):
    (tmp_path / "modules.json").write_text("[")
    with pytest.raises(InputError, match=r"modules\.json is no JSON"):
        declared(ModelOptions(source=str(tmp_path)))
