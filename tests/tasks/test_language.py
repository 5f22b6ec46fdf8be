"""Language modelling: which objective, which tokens are predicted, and that it is the model's own loss."""

import numpy as np
import pytest
import torch
import transformers as tf
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from finetune.core.errors import InputError
from finetune.core.randomness import Streams
from finetune.models import ModelOptions, load_base, load_config, load_tokenizer
from finetune.tasks.conversation import IGNORED
from finetune.tasks.corruption import draw_spans, restored, span_counts
from finetune.tasks.language import Language
from tests import tiny
from tests.examples import TaskExample

EXAMPLES = {
    "language": TaskExample(
        {"max_length": 16},
        lambda folder, count: tiny.write_csv(folder / "data.csv", tiny.sentences(count)),
        models=("encoder", "decoder", "encoder-decoder"),
        alone=True,
        cannot_stack={"encoder": "BertLMPredictionHead", "encoder-decoder": "side by side the model fails"},
    )
}


def fitted(folder, texts, training=True, **options):
    """A task fitted to a model, and what it encodes of ``texts``."""
    train, model = tiny.dataset(text=texts), ModelOptions(source=str(folder))
    task = Language(Language.Options(type="language", **options), config=lambda: load_config(model))
    task.fit(tiny.splits(train), load_tokenizer(model))
    return task, task.encode(train, "data.train", training).examples


def model_for(folder, task):
    base = load_base(ModelOptions(source=str(folder), new=["cls"]), task.architecture, **task.model_config())
    return base.copy(Streams(0)).eval()


def texts(count):
    return [text for text, _ in tiny.sentences(count)]


@pytest.mark.parametrize(("fixture", "masked"), [("encoder_folder", True), ("decoder_folder", False)])
def test_the_objective_is_the_base_models(request, fixture, masked):
    task, _ = fitted(request.getfixturevalue(fixture), texts(3))
    assert task.masked is masked
    assert task.architecture == ("AutoModelForMaskedLM" if masked else "AutoModelForCausalLM")
    with pytest.raises(InputError, match=f"write {'masked' if masked else 'causal'}, or auto"):
        fitted(request.getfixturevalue(fixture), texts(3), objective="causal" if masked else "masked")


def test_an_encoder_decoder_without_tokens_for_spans_is_refused(tmp_path):
    with pytest.raises(InputError, match="has no <extra_id_0>"):
        fitted(tiny.save_t5(tmp_path / "without"), texts(3))
    with pytest.raises(InputError, match="has tokens <extra_id_n> for 1"):
        fitted(tiny.save_t5(tmp_path / "few", extra=2), texts(3), max_length=64)
    with pytest.raises(InputError, match="write span-corruption, or auto"):
        fitted(tiny.save_t5(tmp_path / "few"), texts(3), objective="causal")


def test_a_long_text_is_several_examples_and_nothing_is_lost(decoder_folder):
    long = " ".join(texts(12))
    task, examples = fitted(decoder_folder, [long, "a bank"], max_length=16)
    ids = np.concatenate([example.inputs["input_ids"] for example in examples[:-1]])
    assert max(example.length for example in examples) <= 16 and len(examples) > 4
    assert task.tokenizer.decode(ids, skip_special_tokens=True) == long
    ends = [example.inputs["input_ids"][-1] == task.tokenizer.eos_token_id for example in examples]
    assert ends == [False] * (len(examples) - 2) + [True, True], "a text ends where it ends"
    assert [example.number for example in examples] == list(range(len(examples)))


def test_a_causal_model_predicts_every_token_but_the_first(decoder_folder):
    task, examples = fitted(decoder_folder, ["a bank", "an orbit", *texts(5), "a cup", "a match"])
    model = model_for(decoder_folder, task)
    batch = task.collate(examples)
    assert len(batch.inputs["input_ids"]) < len(examples), "short texts share a row"
    with torch.no_grad():
        found = task.losses(model, batch)
        for loss, example in zip(found, examples, strict=True):
            ids = torch.from_numpy(example.inputs["input_ids"])
            wanted = cross_entropy(model(ids[None]).logits[0, :-1].float(), ids[1:], reduction="sum")
            assert float(loss) == pytest.approx(float(wanted), rel=1e-5)
            assert example.weight == len(ids) - 1


COUNT_THEMSELVES = ["Roberta", "XLMRoberta", "Camembert", "MPNet", "Longformer", "Data2VecText", "RobertaPreLayerNorm"]


@pytest.mark.parametrize("kind", COUNT_THEMSELVES)
def test_a_model_that_counts_positions_from_its_padding_token_gets_none(tmp_path, kind):
    """From `padding_idx` + 1, where BERT counts from 0; losses are those of plain transformers."""
    size = tiny.save_tokenizer(tmp_path)
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    config = {"vocab_size": size, "max_position_embeddings": 130, "pad_token_id": 0, "is_decoder": False, **shape}
    torch.manual_seed(0)
    config |= {"attention_window": [8, 8]} if kind == "Longformer" else {}
    getattr(tf, f"{kind}ForMaskedLM")(getattr(tf, f"{kind}Config")(**config)).save_pretrained(tmp_path)
    losses_are_plain(tmp_path)


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        ("Mra", {"max_position_embeddings": 126}),  # counts from 2, and has no padding among its positions
        ("Esm", {"max_position_embeddings": 130, "mask_token_id": 5}),  # adds to what its output layer gives
    ],
)
def test_other_masked_models_that_do_something_of_their_own(tmp_path, kind, config):
    size = tiny.save_tokenizer(tmp_path)
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    torch.manual_seed(0)
    config = {"vocab_size": size, "pad_token_id": 0, **shape, **config}
    getattr(tf, f"{kind}ForMaskedLM")(getattr(tf, f"{kind}Config")(**config)).save_pretrained(tmp_path)
    losses_are_plain(tmp_path)


def losses_are_plain(folder):
    """Of a batch, those that plain transformers gives of each example alone."""
    task, examples = fitted(folder, texts(4), training=False)
    model = model_for(folder, task)
    with torch.no_grad():
        found = task.losses(model, task.collate(examples))
        wanted = torch.cat([task.plain(model, example).losses() for example in examples])
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)


def test_a_masked_model_predicts_what_is_hidden(encoder_folder):
    task, examples = fitted(encoder_folder, texts(5))
    model = model_for(encoder_folder, task)
    drawn = [task.resample(example, seed) for seed, example in enumerate(examples)]
    with torch.no_grad():
        found = task.losses(model, task.collate(drawn))
        for loss, example in zip(found, drawn, strict=True):
            ids, target = (torch.from_numpy(value) for value in (example.inputs["input_ids"], example.target))
            logits = model(ids[None]).logits[0].float()
            wanted = cross_entropy(logits, target, ignore_index=IGNORED, reduction="sum")
            assert float(loss) == pytest.approx(float(wanted), rel=1e-5)
        outputs = task.outputs(model, task.collate(drawn))
    assert torch.allclose(outputs.losses(), found, rtol=1e-5)


def test_hidden_tokens_are_masked_replaced_or_left(encoder_folder):
    """Of 15 % of the tokens: 80, 10 and 10 % (Devlin et al. 2019, section 3.1)."""
    task, [example] = fitted(encoder_folder, [" ".join(texts(60))], max_length=5000)
    before = example.inputs["input_ids"]
    assert example.weight == round(0.15 * example.length)
    shares = np.zeros(3)
    for seed in range(30):
        drawn = task.resample(example, seed)
        hidden, after = drawn.target != IGNORED, drawn.inputs["input_ids"]
        assert hidden.sum() == example.weight == drawn.weight
        assert (drawn.target[hidden] == before[hidden]).all() and (after[~hidden] == before[~hidden]).all()
        masked, same = after[hidden] == task.tokenizer.mask_token_id, after[hidden] == before[hidden]
        shares += [masked.mean() / 30, (~masked & ~same).mean() / 30, same.mean() / 30]
    assert shares == pytest.approx([0.8, 0.1, 0.1], abs=0.02)


def test_what_is_hidden_is_decided_by_the_seed(encoder_folder):
    task, [example] = fitted(encoder_folder, [" ".join(texts(5))])
    one, again, other = (task.resample(example, seed).target.tolist() for seed in (1, 1, 2))
    assert one == again != other


def test_held_out_texts_hide_the_same_words_every_time(encoder_folder):
    _, one = fitted(encoder_folder, texts(4), training=False)
    _, again = fitted(encoder_folder, texts(4), training=False)
    assert [e.target.tolist() for e in one] == [e.target.tolist() for e in again]
    assert all((e.target != IGNORED).sum() == e.weight for e in one)


def test_special_tokens_are_never_predicted(tmp_path, encoder_folder):
    task, [example] = fitted(encoder_folder, ["<eos> " + texts(1)[0] + " <eos>"])
    special = np.isin(example.inputs["input_ids"], task.tokenizer.all_special_ids)
    assert special.any()
    assert all((task.resample(example, seed).target[special] == IGNORED).all() for seed in range(20))


def test_a_text_without_words_is_no_example(encoder_folder):
    """As an empty one is, of which most tokenizers make what every text begins and ends with."""
    _, examples = fitted(encoder_folder, ["<eos><eos>", texts(1)[0]], training=False)
    assert len(examples) == 1 and (examples[0].target != IGNORED).any()
    with pytest.raises(InputError, match="no text that could be learnt from"):
        fitted(encoder_folder, ["", "<eos><eos>"])


# Span corruption, and bytes


def test_spans_are_hidden_and_written_down(tmp_path):
    """Raffel et al. 2020, figure 2: each span is one sentinel in the text, and comes after it in the labels."""
    task, examples = fitted(tiny.save_encoder_decoder(tmp_path), [" ".join(texts(40))], max_length=32)
    assert task.architecture == "AutoModelForSeq2SeqLM" and task.dynamic and not task.causal
    drawn = set()
    for example in examples:
        ids, (seen, again) = example.inputs["input_ids"], (task.resample(example, seed) for seed in (1, 1))
        assert seen.target.tolist() == again.target.tolist()
        assert len(seen.target) == len(example.target) == seen.weight == example.weight
        assert seen.length <= example.length and seen.inputs["input_ids"][-1] == task.tokenizer.eos_token_id
        assert restored(seen.inputs["input_ids"], seen.target, task.sentinels) == ids.tolist()
        hidden, spans = span_counts(len(ids) - 1, 0.15, 3.0)
        used = [token for token in seen.target if token in task.sentinels]
        assert used == task.sentinels[: spans + 1] and len(seen.target) == hidden + spans + 2
        drawn |= {tuple(task.resample(example, seed).target) for seed in range(4)}
    assert len(drawn) > len(examples)


@given(st.integers(2, 200), st.floats(0.01, 0.9), st.floats(1, 9), st.integers(0, 99))
def test_spans_have_the_share_and_number_that_are_asked_for(tokens, share, mean, seed):
    hidden, spans = span_counts(tokens, share, mean)
    mask = draw_spans(tokens, share, mean, np.random.default_rng(seed))
    assert len(mask) == tokens and mask.sum() == hidden and not mask[0] and mask[-1]
    assert (np.diff(mask.astype(int)) == 1).sum() == spans
    if tokens > 50 and 0.1 < share < 0.5:
        assert hidden == round(share * tokens) and spans == min(max(round(hidden / mean), 1), tokens - hidden)


def test_the_losses_of_spans_are_plain_transformers(tmp_path):
    task, examples = fitted(tiny.save_encoder_decoder(tmp_path), texts(5), training=False, max_length=32)
    model = model_for(tmp_path, task)
    with torch.no_grad():
        for example, loss in zip(examples, task.losses(model, task.collate(examples)), strict=True):
            ids, labels = (torch.tensor(each).long()[None] for each in (example.inputs["input_ids"], example.target))
            assert float(loss) == pytest.approx(
                float(model(input_ids=ids, labels=labels).loss) * example.weight, rel=1e-4
            )


@pytest.mark.parametrize("kind", ["encoder", "decoder", "encoder-decoder"])
def test_bytes_are_those_of_the_text(tmp_path, request, kind):
    folder = tiny.save_encoder_decoder(tmp_path) if "-" in kind else request.getfixturevalue(f"{kind}_folder")
    written = ["a bänk of money \U0001f642 and so on", " ".join(texts(6)), "orbit moon"]
    task, examples = fitted(folder, written, training=False, max_length=16, share=0.5)
    sizes = np.array([example.bytes for example in examples])
    assert (sizes > 0).all() and "bytes" in task.fills
    assert fitted(folder, written, training=True, max_length=16)[1][0].bytes is None, "which only scores need"
    if kind == "decoder":  # all but what the first tokens of the pieces stand for
        first = [task.tokenizer.decode(example.inputs["input_ids"][:1]) for example in examples]
        known = sum(len(text.encode()) for text in written) - sum(len(text.encode()) for text in first)
        assert sizes.sum() == pytest.approx(known, rel=0.02)  # a piece may begin inside a character
    else:  # half of them
        assert sizes.sum() == pytest.approx(sum(len(text.encode()) for text in written) / 2, rel=0.1)
