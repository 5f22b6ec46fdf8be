"""One text made of another: losses and answers are plain transformers', and an encoder becomes both halves."""

import json

import pytest
import torch
from transformers import AutoModelForSeq2SeqLM, BertForMaskedLM, GenerationConfig, NllbTokenizer

from finetune import recipe as recipes
from finetune.core.randomness import Streams
from finetune.models import (
    ModelOptions,
    load_base,
    load_config,
    load_tokenizer,
    positions_of,
    rows_said,
    skeleton,
    weightless_base,
)
from finetune.runner.build import prepare
from finetune.strategies.adapter import Adapter
from finetune.tasks.baselines.base import ExampleSet
from finetune.tasks.seq2seq import Seq2Seq
from tests import tiny
from tests.examples import TaskExample

EXAMPLES = {
    "seq2seq": TaskExample(
        {"max_length": 32, "max_new_tokens": 6, "metrics": ["rouge_l", "chrf", "loss"]},
        lambda folder, count: tiny.write_sources(folder / "data.csv", count),
        models=("encoder-decoder", "bart", "masked"),
        both=True,
        cannot_stack={
            "encoder-decoder": "side by side the model fails",
            "bart": "side by side the model fails",
            "masked": "BertLMPredictionHead",
        },
    )
}

CPU = torch.device("cpu")
KINDS = {
    "t5": tiny.save_encoder_decoder,
    "bart": tiny.save_bart,
    "masked": tiny.save_masked,
    "encoder": lambda folder: tiny.save_encoder(folder, initializer_range=0.3),
}


@pytest.fixture(params=KINDS)
def any_folder(request, tmp_path):
    return KINDS[request.param](tmp_path / request.param)


def task_of(folder=None, **options):
    config = None if folder is None else lambda: load_config(ModelOptions(source=str(folder)))
    return Seq2Seq(Seq2Seq.Options(type="seq2seq", **options), config=config)


def pairs(count):
    rows = tiny.sentences(count)
    return tiny.dataset(source=[text for text, _ in rows], target=[f"{topic} and {text[:9]}" for text, topic in rows])


def fitted(folder, data, training=True, **options):
    task = task_of(folder, **options)
    task.fit(tiny.splits(data), load_tokenizer(ModelOptions(source=str(folder))))
    return task, task.encode(data, "data.train", training)


def model_for(folder, task):
    options = ModelOptions(source=str(folder), new=["cls"])
    return load_base(options, task.architecture, **task.model_config()).copy(Streams(0)).eval()


def test_labels_end_and_are_counted(any_folder):
    data = tiny.dataset(source=["the bank", "a match"], target=["money", "spört and"])
    task, encoded = fitted(any_folder, data, prefix="say: ")
    for example, source, target in zip(encoded.examples, data["source"], data["target"], strict=True):
        assert task.tokenizer.decode(example.inputs["input_ids"], skip_special_tokens=True) == f"say: {source}"
        assert task.tokenizer.decode(example.target[:-1]) == target and example.target[-1] == task.end
        assert example.weight == len(example.target) and example.reference == target
        assert example.bytes == len(target.encode())
        assert (example.prompt == example.inputs["input_ids"]).all()
    assert encoded.facts["cut"] == 0 and encoded.facts["cut_targets"] == 0


def test_long_texts_are_cut_but_no_target_that_is_scored(any_folder):
    data = tiny.dataset(source=["the bank " * 20, "a"], target=["match " * 20, "a"])
    task, encoded = fitted(any_folder, data, max_length=8, max_target_length=6)
    first = encoded.examples[0]
    assert first.length == 8 and len(first.target) == 6 and first.target[-1] == task.end
    assert (encoded.facts["cut"], encoded.facts["cut_targets"]) == (1, 1)
    scored = task.encode(data, "data.test", training=False)
    assert len(scored.examples[0].target) > 20 and scored.facts["cut_targets"] == 0


def test_losses_are_those_of_plain_transformers(any_folder):
    """Summed over label tokens, whatever else is in the batch."""
    data = pairs(6)
    task, encoded = fitted(any_folder, data)
    model = model_for(any_folder, task)
    with torch.no_grad():
        together = task.losses(model, task.collate(encoded.examples))
        outputs = task.outputs(model, task.collate(encoded.examples)).losses()
        for example, loss in zip(encoded.examples, together, strict=True):
            ids, labels = (torch.tensor(each).long()[None] for each in (example.inputs["input_ids"], example.target))
            mean = model(input_ids=ids, labels=labels).loss
            assert float(loss) == pytest.approx(float(mean) * example.weight, rel=1e-4)
            assert float(task.plain(model, example).losses()[0]) == pytest.approx(float(loss), rel=1e-4)
    assert torch.allclose(together, outputs, rtol=1e-4)


@pytest.mark.parametrize("beams", [1, 3])
def test_answers_do_not_depend_on_the_batch_or_the_tokenizers_padding(any_folder, beams):
    task, encoded = fitted(any_folder, pairs(5), max_new_tokens=5, num_beams=beams)
    model = model_for(any_folder, task)
    with torch.no_grad():
        together = task.generate(model, encoded.examples, CPU)
        alone = [task.generate(model, [example], CPU)[0] for example in encoded.examples]
        losses = task.losses(model, task.collate(encoded.examples))
        task.tokenizer.padding_side = "left"
        assert task.generate(model, encoded.examples, CPU) == together == alone
        assert torch.equal(task.losses(model, task.collate(encoded.examples)), losses)
    assert len(set(together)) > 1


def test_greedy_answers_are_transformers_own(any_folder):
    task, encoded = fitted(any_folder, pairs(3), max_new_tokens=6)
    model = model_for(any_folder, task)
    for example, said in zip(encoded.examples, task.generate(model, encoded.examples, CPU), strict=True):
        ids = torch.tensor(example.inputs["input_ids"]).long()[None]
        start = model.config.decoder_start_token_id
        settings = {"max_new_tokens": 6, "do_sample": False, "num_beams": 1, "eos_token_id": task.end}
        model.generation_config = GenerationConfig()
        found = model.generate(input_ids=ids, decoder_start_token_id=start, pad_token_id=0, **settings)
        assert task.tokenizer.decode(found[0, 1:], skip_special_tokens=True).strip() == said


def test_an_encoder_becomes_both_halves(tmp_path):
    folder = tiny.save_masked(tmp_path / "model")
    task, encoded = fitted(folder, pairs(3))
    base = load_base(ModelOptions(source=str(folder)), task.architecture, **task.model_config())
    assert base.new and all(".crossattention." in name for name in base.new), "everything else is pretrained"
    one, other = (base.copy(Streams(seed)) for seed in (1, 2))
    differing = {name for name, value in one.named_parameters() if not torch.equal(value, other.get_parameter(name))}
    assert differing and differing <= base.new
    bert = BertForMaskedLM.from_pretrained(folder)
    for half in (one.encoder, one.decoder.bert):
        weight = half.encoder.layer[1].attention.self.query.weight
        assert torch.equal(weight, bert.bert.encoder.layer[1].attention.self.query.weight)
    assert one.decoder.get_output_embeddings().weight is one.decoder.get_input_embeddings().weight
    empty = skeleton(ModelOptions(source=str(folder)), task.architecture, **task.model_config())
    assert weightless_base(ModelOptions(source=str(folder)), empty).new == base.new
    assert positions_of(one) == 128 and rows_said(one.config) == one.config.encoder.vocab_size
    one.eval().save_pretrained(tmp_path / "saved")
    plain = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "saved").eval()
    with torch.no_grad():
        batch = task.collate(encoded.examples)
        assert torch.allclose(task.losses(one, batch), task.losses(plain, batch))


def test_an_output_layer_that_a_checkpoint_lacks_has_to_be_named(tmp_path, refusal):
    folder = tiny.save_encoder(tmp_path)
    task, _ = fitted(folder, pairs(3))
    problem = refusal(load_base, ModelOptions(source=str(folder)), task.architecture, **task.model_config())
    assert "cls" in problem.advice and "crossattention" not in problem.advice


def test_an_adapter_beside_a_new_output_layer_is_saved_and_restored(tmp_path):
    """What is tied to the embeddings stays theirs."""
    folder = tiny.save_encoder(tmp_path / "model")
    task, encoded = fitted(folder, pairs(4))
    options = Adapter.Options(type="adapter", method="lora", rank=2)

    def made(seed):
        base = load_base(ModelOptions(source=str(folder), new=["cls"]), task.architecture, **task.model_config())
        return prepare(base.copy(Streams(seed)), task, options, [], "adamw", base.new)

    one, other, batch = made(1), made(2), task.collate(encoded.examples)
    learning = [name for name, value in one.model.named_parameters() if value.requires_grad]
    assert any("crossattention" in name for name in learning) and any("transform" in name for name in learning)
    assert not any("word_embeddings" in name or "predictions.decoder" in name for name in learning)
    one.strategy.save(one.model, tmp_path)
    other.strategy.restore(other.model, tmp_path)
    with torch.no_grad():
        assert torch.allclose(task.losses(one.model.eval(), batch), task.losses(other.model.eval(), batch))


# What is refused


@pytest.mark.parametrize(
    "columns, path, found",
    [
        ({"source": ["a", " "], "target": ["x", "y"]}, "task.source", "an empty text in row 2"),
        ({"source": ["a", "b"], "target": ["", "y"]}, "task.target", "an empty text in row 1"),
        ({"source": ["a", "b"], "target": ["x", None]}, "task.target", "row 2"),
        ({"source": ["a", "b"], "target": [1.0, float("nan")]}, "task.target", "numbers, such as 1.0"),
        ({"source": ["a", "b"]}, "task.target", "no column 'target'"),
    ],
)
def test_columns_that_cannot_serve_are_refused(refusal, columns, path, found):
    problem = refusal(task_of().check, tiny.dataset(**columns), "data.train")
    assert problem.path == path and found in problem.found and "data.train" in problem.found


def test_a_decoder_is_refused(decoder_folder, refusal):
    assert "a decoder, which continues one text" in refusal(task_of(decoder_folder).check_config).found


def test_a_language_needs_a_tokenizer_that_knows_it(any_folder, refusal):
    problem = refusal(fitted, any_folder, pairs(2), source_language="eng_Latn", target_language="deu_Latn")
    assert problem.path == "task.source_language" and "knows no languages" in problem.found
    with pytest.raises(ValueError, match="both source_language and target_language"):
        Seq2Seq.Options(type="seq2seq", source_language="en")


LANGUAGES = ["eng_Latn", "deu_Latn", "fra_Latn"]


def test_languages_are_those_of_one_task_alone(tmp_path):
    """Tasks share the tokenizer that was loaded: variants, and sets with a task of their own."""
    folder = tiny.save_bart(tmp_path / "bart")
    words = ["<s>", "<pad>", "</s>", "<unk>", "\N{LOWER ONE EIGHTH BLOCK}", "a", *LANGUAGES, "<mask>"]
    vocab = {word: number for number, word in enumerate(words)}
    shared = NllbTokenizer(vocab=vocab, merges=[], extra_special_tokens=LANGUAGES)
    data = tiny.dataset(source=["a"], target=["a a"])
    before, german, after = (
        task_of(folder, **own) for own in ({}, {"source_language": "deu_Latn", "target_language": "fra_Latn"}, {})
    )
    for task in (before, german, after):
        task.fit(tiny.splits(data), shared)
    for task, source, target in ((german, *LANGUAGES[1:]), (before, *LANGUAGES[:1] * 2), (after, *LANGUAGES[:1] * 2)):
        [example] = task.encode(data, "data.train", training=True).examples
        first = (example.inputs["input_ids"][0], example.target[0])
        assert shared.convert_ids_to_tokens(list(map(int, first))) == [source, target]
    assert german.tokenizer.src_lang == "deu_Latn" and shared.src_lang == "eng_Latn", "as each is saved"


@pytest.mark.parametrize("strategy", [{"type": "linear"}, {"type": "preference", "of": {"type": "full"}}])
def test_strategies_without_a_meaning_are_refused(tmp_path, refusal, strategy):
    recipe = {"model": {"source": "m"}, "data": {"train": {"path": "d.csv"}, "split": {"test": 1}}}
    (tmp_path / "recipe.yaml").write_text(json.dumps({**recipe, "task": {"type": "seq2seq"}, "strategy": strategy}))
    assert refusal(recipes.load, tmp_path / "recipe.yaml").path == "strategy.type"


def test_shots_are_refused(tmp_path, refusal):
    recipe = {"model": {"source": "m"}, "data": {"train": {"path": "d.csv"}, "split": {"test": 1}}}
    recipe |= {"task": {"type": "seq2seq"}, "strategy": {"type": "full"}, "baselines": {"shots": 2}}
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe))
    assert "continues no text" in refusal(recipes.load, tmp_path / "recipe.yaml").found


def test_baselines_copy_and_repeat(any_folder):
    data = tiny.dataset(source=["A cat. A dog.", "One? Two."], target=["x", "x"])
    task, encoded = fitted(any_folder, data)
    held_out, said = ExampleSet("data.test", data, encoded), {}
    for baseline in task.baselines():
        baseline.fit(held_out, None)
        said[baseline.name] = [found.text for found in baseline.predict(held_out)]
    assert said == {
        "lead-sentence": ["A cat.", "One?"],
        "copy-source": ["A cat. A dog.", "One? Two."],
        "commonest-target": ["x", "x"],
    }
