"""R runs in one model: each comes out as it would be alone, and goes on as it was."""

import pytest
import torch
import transformers
from transformers import AutoModelForCausalLM

from finetune.core.randomness import Streams
from finetune.core.registry import STRATEGIES
from finetune.replicas import group as group_module
from finetune.replicas.group import ReplicaGroup
from finetune.replicas.stacked import CannotStack, SeenEmbedding
from finetune.runner import session
from finetune.strategies.base import trained_parameters
from tests import tiny
from tests.replicas.groups import Variant, far

LORA = {"type": "adapter", "rank": 4}
STRATEGY = {
    "full": {"type": "full"},
    "last block": {"type": "partial", "last": 1},
    "biases": {"type": "partial", "patterns": ["*.bias"]},
    "norms": {"type": "partial", "patterns": ["*[nN]orm*"]},
    "gpt2's norms": {"type": "partial", "patterns": ["*ln_*"]},
    "embeddings": {"type": "partial", "patterns": ["*embed*"]},
    "positions": {"type": "partial", "patterns": ["*wpe*"]},
    "lora": LORA,
}
MODELS = ["bert", "llama", "gpt2"]


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return {
        "bert": tiny.save_encoder(folder / "bert"),
        "llama": tiny.save_decoder(folder / "llama"),
        "gpt2": tiny.save_gpt2(folder / "gpt2"),
    }


@pytest.fixture(scope="session")
def variant(tmp_path_factory, folders):
    """A variant of a model and strategy, loaded once."""
    first, made = {}, {}

    def make(model, strategy, task=None):
        task = task or ("classification" if model == "bert" else "chat")
        if (model, strategy, task) not in made:
            folder = tmp_path_factory.mktemp("variant")
            new = Variant.of(folder, folders[model], task, STRATEGY[strategy])
            new.shared = first.setdefault((model, task), new).resources
            made[model, strategy, task] = new
        return made[model, strategy, task]

    return make


WITH = {
    "bert": ["full", "last block", "biases", "norms", "embeddings", "lora"],
    "llama": ["full", "last block", "norms", "embeddings", "lora"],
    "gpt2": ["full", "last block", "biases", "gpt2's norms", "positions", "lora"],
}
every_model = pytest.mark.parametrize(("model", "strategy"), [(m, s) for m in WITH for s in WITH[m]])


def shaken(group):
    """Every trained parameter moved, differently in each run."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in trained_parameters(group.model).values():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
    return group


def losses(group, variant, count=6):
    """Losses (R, count) of the first examples, without dropout."""
    task, examples = variant.data.task, variant.data.train.examples[:count] * group.count
    group.model.eval()
    with torch.no_grad():
        task.loss_path(group.model, group.count)
        batch = task.arranged(group.model, task.collate(examples, [len(examples) // group.count] * group.count))
        with group.on(examples, batch):
            return task.losses(group.model, batch).reshape(group.count, -1)


@every_model
def test_each_run_of_a_group_is_its_own_model(variant, model, strategy):
    """The group's losses are those of its runs one by one; before and after each stood alone."""
    this = variant(model, strategy)
    group = shaken(this.like(prefix_cache=False).assembled([0, 1, 2]))
    together = losses(group, this)
    for number in range(3):
        with group.alone(number) as one:
            own = losses(ReplicaGroup(one), this)
        assert torch.allclose(own[0], together[number], rtol=1e-4, atol=1e-5)
        assert not torch.allclose(own[0], together[number - 1], rtol=1e-3, atol=1e-3)
        assert torch.equal(losses(group, this), together)


@every_model
def test_a_run_starts_in_a_group_as_it_does_alone(variant, model, strategy):
    this = variant(model, strategy).like(prefix_cache=False)
    group = this.assembled([3, 5])
    for number, seed in enumerate([3, 5]):
        with group.alone(number) as one:
            own = {name: value.clone() for name, value in one.named_parameters()}
        fresh = this.session().build(Streams(seed)).model
        assert own.keys() == dict(fresh.named_parameters()).keys()
        # peft keeps a copy of the head as it was drawn, which is the first run's, and which nothing ever uses.
        used = {name: value for name, value in fresh.named_parameters() if "original_module" not in name}
        assert all(torch.equal(own[name], value) for name, value in used.items())
        assert trained_parameters(fresh).keys() == trained_parameters(group.model).keys()


@pytest.mark.parametrize(("model", "strategy"), [*((m, "full") for m in MODELS), ("bert", "lora"), ("gpt2", "biases")])
def test_what_is_saved_of_a_run_is_the_run(variant, tmp_path, model, strategy):
    this = variant(model, strategy).like(prefix_cache=False)
    group = shaken(this.assembled([0, 1]))
    kind = STRATEGIES.get(this.recipe.strategy.type)(this.recipe.strategy)
    together = losses(group, this)
    for number in range(2):
        with group.alone(number) as one:
            kind.save(one, tmp_path / str(number))
        fresh = this.session().build(Streams(7)).model
        kind.restore(fresh, tmp_path / str(number))
        assert torch.allclose(losses(ReplicaGroup(fresh), this)[0], together[number], rtol=1e-4, atol=1e-5)
    assert losses(group, this).equal(together), "saving changed nothing"


@pytest.mark.parametrize("model", ["llama", "gpt2"])
def test_tied_embeddings_stay_tied(variant, tmp_path, model):
    this = variant(model, "full")
    group = this.assembled([0, 1])
    inputs, outputs = group.model.get_input_embeddings(), group.model.get_output_embeddings()
    assert inputs.weight is outputs.weight and inputs.weight.shape[0] == 2
    names = {name for name, _ in group.model.named_parameters()}
    with group.alone(0) as one:
        assert {name for name, _ in one.named_parameters()} == names
    loss = losses_with_gradient(group, this)
    loss.sum().backward()
    assert inputs.weight.grad.flatten(1).norm(dim=1).min() > 0
    shaken(group)
    with group.alone(1) as one:
        assert one.get_input_embeddings().weight is one.get_output_embeddings().weight
        one.save_pretrained(tmp_path)
        wanted = one.get_input_embeddings().weight.clone()
    assert torch.equal(AutoModelForCausalLM.from_pretrained(tmp_path).get_output_embeddings().weight, wanted)


def losses_with_gradient(group, variant):
    task, examples = variant.data.task, variant.data.train.examples[:3] * group.count
    task.loss_path(group.model, group.count)
    batch = task.collate(examples, [len(examples) // group.count] * group.count)
    with group.on(examples, batch):
        return task.losses(group.model, batch)


def test_the_group_comes_back_after_an_error(variant):
    this = variant("bert", "full")
    group = this.assembled([0, 1])
    before = losses(group, this)
    with pytest.raises(ZeroDivisionError), group.alone(1):
        raise ZeroDivisionError
    assert torch.equal(losses(group, this), before)


def test_a_run_that_stands_alone_is_a_view_of_the_group(variant):
    """Nothing is copied; what is changed there is changed here."""
    group = variant("bert", "full").assembled([0, 1])
    with group.alone(1) as one, torch.no_grad():
        one.classifier.bias.add_(1)
    bias = group.model.classifier.get_parameter("bias")
    assert (bias[1] - 1).abs().max() < 0.2 and bias[0].abs().max() < 0.2


@pytest.mark.parametrize(("model", "strategy"), [("bert", "last block"), ("bert", "lora"), ("llama", "norms")])
def test_frozen_weights_exist_once(variant, model, strategy):
    """However many runs there are, and wherever they are kept."""
    group = variant(model, strategy).assembled([0, 1, 2])
    everywhere = [*group.model.parameters(), *(p for place in group._places for p in place.plain.parameters())]
    rooms = {value.untyped_storage().data_ptr(): value.untyped_storage().nbytes() for value in everywhere}
    with group.alone(0) as one:
        parts = [p.numel() * p.element_size() for p in one.parameters()]
        learning = [p.numel() * p.element_size() for p in trained_parameters(one).values()]
    assert sum(rooms.values()) == sum(parts) + 2 * sum(learning)


def test_an_adapter_of_embeddings_is_refused(variant):
    this = variant("bert", "lora")
    targets = this.recipe.strategy.model_copy(update={"targets": ["word_embeddings"]})
    with pytest.raises(CannotStack, match="ParameterDict"):
        this.like(targets).assembled([0, 1])


def test_one_run_leaves_its_model_as_it_is(variant):
    this = variant("bert", "full")
    model = this.base.copy(Streams(0))
    modules = list(model.modules())
    group = ReplicaGroup.stack(model, [dict(trained_parameters(model))])
    assert group.count == 1 and list(group.model.modules()) == modules
    with group.alone(0) as one:
        assert one is model


@pytest.mark.parametrize("model", ["llama", "gpt2"])
@pytest.mark.parametrize("packing", [True, False])
def test_a_group_generates_what_its_runs_would(variant, model, packing):
    this = variant(model, "full")
    task, examples = this.data.task, this.data.held_out["test"].examples
    group = shaken(this.assembled([0, 1, 2]))
    every = [*examples] * 3
    task.options = task.options.model_copy(update={"packing": packing})
    losses(group, this)  # a batch of another shape went through before
    try:
        with torch.inference_mode():
            together = task.generate(group.model.eval(), every, torch.device("cpu"))
            for number in range(3):
                with group.alone(number) as one:
                    own = task.generate(one.eval(), examples, torch.device("cpu"))
                assert together[number * len(examples) : (number + 1) * len(examples)] == own
    finally:
        task.options = task.options.model_copy(update={"packing": True})
    assert len(set(together)) > 1


def test_replicas_of_unequal_batches_train_as_they_would_alone(variant):
    """Token budgets cut each run's batches and parts in its own way: some are filled up beside others."""
    this = variant("llama", "lora").like(batch_tokens=150, micro_batch_tokens=120)
    together = this.run([0, 1], "together")
    alone = [this.run([seed], "alone")[0] for seed in (0, 1)]
    assert len({len(batch) for came in alone for batch in came.batches}) > 1
    assert max(far(one, other) for one, other in zip(together, alone, strict=True)) < 1e-4


@pytest.mark.parametrize("seeds", [[0], [0, 1, 2]], ids=["alone", "together"])
@pytest.mark.parametrize("keep", ["best", "last"])
def test_training_the_rows_alone_that_training_meets_is_training_all(variant, monkeypatch, seeds, keep):
    """The others are decayed as they would have been: when they are scored, when the best is kept, and when saved."""
    this = variant("bert", "full").like(weight_decay=0.5, learning_rate=0.01, evaluations=3, keep=keep)
    name = "bert.embeddings.word_embeddings.weight"
    some = this.assembled(seeds)
    assert type(some.model.get_input_embeddings()) is SeenEmbedding
    assert trained_parameters(some.model)[name].shape[-2] < 400
    partly = this.run(seeds, f"some-{keep}-{len(seeds)}")
    monkeypatch.setattr(group_module, "FEW", 0)
    assert trained_parameters(this.assembled(seeds).model)[name].shape[-2] == 400
    whole = this.run(seeds, f"all-{keep}-{len(seeds)}")
    for one, other in zip(partly, whole, strict=True):
        assert far(one, other) < 1e-4
        assert [row["scores"] for row in one.rows if "scores" in row] == [
            pytest.approx(row["scores"], rel=1e-4) for row in other.rows if "scores" in row
        ]
    unseen = [
        token for token in range(400) if not any(token in e.inputs["input_ids"] for e in this.data.train.examples)
    ]
    before = this.base.model.get_parameter(name)[unseen[1:]]
    share = whole[0].weights[name][unseen[1:]].norm() / before.norm()
    assert share < 0.995, "there was something to make up for"


def test_what_training_never_meets_cannot_be_trained_on(variant):
    """Rather an error than a row that silently stays as it is."""
    this = variant("bert", "full")
    group, seen = this.assembled([0]), {t for e in this.data.train.examples for t in e.inputs["input_ids"].tolist()}
    foreign = next(token for token in range(10, 400) if token not in seen)
    with pytest.raises(ValueError, match="cannot be trained on"):
        group.model(input_ids=torch.tensor([[foreign]])).logits.sum().backward()
    with torch.no_grad():
        group.model(input_ids=torch.tensor([[foreign]]))


def test_what_nobody_looks_at_needs_not_be_met(variant):
    """Padding, whatever a model fills it with, gets no gradient."""
    this = variant("bert", "full")
    group, seen = this.assembled([0]), {t for e in this.data.train.examples for t in e.inputs["input_ids"].tolist()}
    foreign = next(token for token in range(10, 400) if token not in seen)
    ids = torch.tensor([[*sorted(seen)[:5], foreign]])
    group.model.eval()(input_ids=ids, attention_mask=torch.tensor([[1, 1, 1, 1, 1, 0]])).logits.sum().backward()
    assert trained_parameters(group.model)["bert.embeddings.word_embeddings.weight"].grad.any()


NARROW = {"intermediate_size": 64, "num_attention_heads": 4, "input_embedding_size": 16, "output_embedding_size": 16}
UNTIED = {
    "words are replaced": ("RemBert", "MaskedLM", NARROW),
    "it is not packed": ("Mamba", "CausalLM", {"tie_word_embeddings": False, "state_size": 4}),
}


@pytest.mark.parametrize("why", UNTIED)
def test_what_training_makes_up_is_met_by_untied_models_too(tmp_path, why):
    """Random words for masked ones, and padding where each example has a row of its own."""
    family, head, config = UNTIED[why]
    size = {"vocab_size": 2000, "hidden_size": 32, "num_hidden_layers": 2, "pad_token_id": 5}
    tiny.save_tokenizer(tmp_path / "model")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "model", pad_token="[MASK]")
    tokenizer.mask_token = "[MASK]"
    tokenizer.save_pretrained(tmp_path / "model")
    torch.manual_seed(0)
    made = getattr(transformers, f"{family}Config")(**size, **config)
    getattr(transformers, f"{family}For{head}")(made).save_pretrained(tmp_path / "model")
    [came] = Variant.of(tmp_path / "study", tmp_path / "model", "language", STRATEGY["full"]).run([0], "run")
    assert came.losses[-1] < came.losses[0]


def test_what_an_encoder_decoder_puts_before_a_text_is_met(tmp_path):
    """Its start token stands in no example."""
    folder = tiny.save_encoder_decoder(tmp_path / "model")
    this = Variant.of(tmp_path / "study", folder, "classification", STRATEGY["full"])
    this.base.model.config.decoder_start_token_id = 4
    assert 4 not in {token for example in this.data.train.examples for token in example.inputs["input_ids"].tolist()}
    assert 4 in session._seen(this.data, this.base.model.config)


@pytest.mark.parametrize("part", [4, 1])
def test_rows_may_come_second(tmp_path, part):
    """In XLNet, whose embeddings are looked up by position and row."""
    size = tiny.save_tokenizer(tmp_path / "model")
    shape = {"d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 64}
    torch.manual_seed(0)
    made = transformers.XLNetConfig(vocab_size=size, pad_token_id=0, **shape)
    transformers.XLNetLMHeadModel(made).save_pretrained(tmp_path / "model")
    this = Variant.of(tmp_path / "study", tmp_path / "model", "classification", STRATEGY["full"])
    [came] = this.like(micro_batch_size=part).run([0], "run")
    assert torch.isfinite(torch.tensor(came.losses)).all()
