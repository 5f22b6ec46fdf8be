"""The frozen prefix: found where there is one, never used where it would change anything, and computed once."""

import pytest
import torch
import transformers

from finetune.evaluate.predict import predict
from finetune.replicas import prefix as module
from finetune.replicas.prefix import Activations, find_prefix
from finetune.strategies.base import set_training_mode, trained_parameters
from tests import tiny
from tests.replicas.groups import Variant, far

LAST, LINEAR = {"type": "partial", "last": 1}, {"type": "linear", "solver": "steps"}
WITHOUT = {"embd_pdrop": 0.0}
CPU = torch.device("cpu")


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return {
        "bert": tiny.save_encoder(folder / "bert"),
        "llama": tiny.save_decoder(folder / "llama", attention_dropout=0.1),
        "gpt2": tiny.save_gpt2(folder / "gpt2"),
        "gpt2, no dropout on embeddings": tiny.save_gpt2(folder / "gpt2-without", **WITHOUT),
        "t5": tiny.save_encoder_decoder(folder / "t5"),
    }


@pytest.fixture
def variant(tmp_path, folders):
    """A variant with nothing remembered yet."""

    def make(model, strategy, task="classification", **train):
        return Variant.of(tmp_path, folders[model], task, strategy, **train)

    return make


@pytest.fixture
def watched(monkeypatch):
    """Counts rows that go through the lowest block of a group's model, seen from inside it."""

    def watch(group):
        rows = []
        lowest = next(m for n, m in group.model.named_modules() if n.endswith(("layer.0", "layers.0", "h.0")))
        inside = next(child for child in lowest.children() if any(True for _ in child.parameters()))
        inside.register_forward_pre_hook(
            lambda _, args, kwargs: rows.append(len(args[0] if args else kwargs["hidden_states"])), with_kwargs=True
        )
        return rows

    return watch


# Where there is one


@pytest.mark.parametrize(
    ("model", "task", "strategy", "names"),
    [
        ("bert", "classification", LINEAR, ["bert"]),
        ("llama", "classification", LINEAR, ["model"]),
        ("gpt2", "classification", LINEAR, ["transformer"]),
        ("bert", "classification", LAST, ["bert.encoder.layer.0"]),
        ("llama", "classification", LAST, ["model.layers.0"]),
        ("llama", "chat", LAST, ["model.layers.0"]),
        ("gpt2", "chat", LAST, ["transformer.h.0"]),
        ("bert", "classification", {"type": "partial", "patterns": ["*.1.*.bias"]}, ["bert.encoder.layer.0"]),
        ("bert", "classification", {"type": "partial", "last": 2}, []),
        ("bert", "classification", {"type": "partial", "patterns": ["*embed*"]}, []),
        ("llama", "chat", {"type": "partial", "last": 1, "patterns": ["*embed*"]}, []),
        ("bert", "classification", {"type": "partial", "patterns": ["*.bias"]}, []),
        ("bert", "classification", {"type": "full"}, []),
        ("llama", "chat", {"type": "adapter", "rank": 2}, []),
        (
            "bert",
            "classification",
            {"type": "adapter", "rank": 2, "targets": ["layer.1.attention.self.query"]},
            ["base_model.model.bert.encoder.layer.0"],
        ),
        ("t5", "classification", LINEAR, []),
        ("t5", "classification", LAST, []),
    ],
    ids=str,
)
def test_the_prefix_ends_below_what_learns(variant, model, task, strategy, names):
    for seeds in ([0], [0, 1]):
        group = variant(model, strategy, task, prefix_cache=False).assembled(seeds)
        set_training_mode(group.model)
        assert find_prefix(group.model) == names


def test_a_block_with_dropout_at_work_ends_the_prefix(variant):
    group = variant("bert", LAST, prefix_cache=False).assembled()
    set_training_mode(group.model)
    group.model.bert.encoder.layer[0].train()
    assert find_prefix(group.model) == []


def test_dropout_below_the_blocks_is_noticed(variant):
    """GPT-2 drops a share of its embeddings, outside any block: what one step saw, the next would not."""
    assert variant("gpt2", LAST, "chat").assembled().prefix is None
    this = variant("gpt2, no dropout on embeddings", LAST, "chat")
    assert this.assembled().prefix.names == ["transformer.h.0"]


def test_where_a_run_is_shorter_than_an_epoch_nothing_is_remembered(variant):
    """Four steps make an epoch here."""
    this = variant("bert", LAST)
    assert this.like(max_steps=3, min_steps=3).assembled().prefix is None
    assert this.like(max_steps=3, min_steps=3).assembled([0, 1]).prefix is not None
    assert this.assembled().prefix is not None


# What is remembered is what would be computed


@pytest.mark.parametrize(
    ("model", "task", "strategy", "train"),
    [
        ("bert", "classification", LAST, {"evaluations": 3, "micro_batch_size": 3}),
        ("bert", "classification", LINEAR, {"evaluations": 3, "batch_tokens": 60}),
        ("llama", "chat", LAST, {"evaluations": 2, "micro_batch_tokens": 80}),
        ("gpt2, no dropout on embeddings", "chat", LAST, {}),
        ("gpt2", "classification", LINEAR, {}),
    ],
    ids=str,
)
@pytest.mark.parametrize("seeds", [[0], [0, 1]], ids=["alone", "together"])
def test_training_on_it_is_training_without(variant, model, task, strategy, train, seeds):
    this = variant(model, strategy, task, **train)
    assert this.assembled().prefix is not None
    remembered, computed = this.run(seeds, "with"), this.like(prefix_cache=False).run(seeds, "without")
    for one, other in zip(remembered, computed, strict=True):
        assert far(one, other) < 1e-4
        assert one.predictions.prediction == other.predictions.prediction
        for ours, theirs in zip(one.rows, other.rows, strict=True):
            assert ours.get("scores", {}) == pytest.approx(theirs.get("scores", {}), rel=1e-4)


def test_in_bfloat16_it_is_the_same_but_for_rounding(variant):
    this = variant("bert", LAST)
    [one] = this.run([0], "with", dtype=torch.bfloat16)
    [other] = this.like(prefix_cache=False).run([0], "without", dtype=torch.bfloat16)
    assert one.losses == pytest.approx(other.losses, rel=0.02)
    [store] = [value for key, value in this.base.kept.items() if key[0] == "activations"]
    assert next(iter(store._sets.values())).arrays[""].dtype == torch.bfloat16, "half the room"


def test_how_examples_are_laid_out_does_not_matter(variant):
    """Remembered packed, used one a row."""
    this = variant("llama", LAST, "chat")
    packed = this.run([0], "packed")[0]
    task = this.data.task
    task.options = task.options.model_copy(update={"packing": False})
    apart, computed = this.run([0], "apart")[0], this.like(prefix_cache=False).run([0], "computed")[0]
    assert far(apart, packed) < 1e-4 and far(apart, computed) < 1e-4


# It is computed once


def test_the_blocks_below_do_not_run_again(variant, watched):
    this = variant("bert", LAST)
    group = this.assembled()
    rows = watched(group)
    task, examples = this.data.task, this.data.train.examples
    group.prefix.fill(group.model, task, examples, this.runtime(), 8)
    assert rows == [], "all was there"
    for grad in (True, False):
        with torch.set_grad_enabled(grad), group.on(examples[:5], batch := task.collate(examples[:5])):
            found = task.losses(group.model, batch)
        assert rows == [] and found.requires_grad == grad
    with torch.no_grad():
        task.losses(group.model, task.collate(examples[:5]))
    assert rows == [5], "outside the context the model computes everything"


def test_seeds_and_variants_share_it(variant, monkeypatch):
    """All that the second one computes is the two examples with which it makes sure."""
    filled = []
    bottom = module.Prefix._bottom
    monkeypatch.setattr(
        module.Prefix,
        "_bottom",
        lambda self, model, task, examples, runtime: [
            filled.append(len(examples)),
            bottom(self, model, task, examples, runtime),
        ],
    )
    this = variant("bert", LAST)
    this.assembled([0])
    assert sum(filled) == 32 + 2
    for other in (this, this.like(learning_rate=1e-3), this.like(max_steps=50)):
        for seeds in ([1], [2, 3]):
            filled.clear()
            other.assembled(seeds)
            assert filled == [2]
    filled.clear()
    this.like(this.recipe.strategy.model_copy(update={"patterns": ["bert.pooler.*"]})).assembled([0])
    assert filled == [2], "another variant with the same frozen part"
    this.assembled([0], dtype=torch.bfloat16)
    assert sum(filled) == 2 + 32 + 2, "another dtype is another thing"


def test_held_out_sets_are_remembered_when_they_are_first_scored(variant, watched):
    this = variant("bert", LAST)
    examples = this.data.held_out["test"].examples
    runtime = this.runtime()
    plain = predict(this.like(prefix_cache=False).assembled(), this.data.task, examples, 3, runtime)
    group = this.assembled([0, 1])
    rows = watched(group)
    first = predict(group, this.data.task, examples, 3, runtime)
    assert sum(rows) == 2 * len(examples)
    second = predict(group, this.data.task, examples, 5, runtime)
    other = this.assembled([4, 5])
    others_rows = watched(other)
    predict(other, this.data.task, examples, 8, runtime)
    assert sum(rows) == 2 * len(examples) and others_rows == []
    for found in (first[0], second[0]):
        assert found.loss == pytest.approx(plain[0].loss, rel=1e-5)
    assert first[1].loss == pytest.approx(second[1].loss, rel=1e-5) and first[1].loss != pytest.approx(first[0].loss)


def test_training_may_follow_on_what_scoring_remembered(variant, watched):
    """Scoring happens in inference mode, whose tensors cannot be trained on."""
    this = variant("bert", LAST)
    group = this.assembled()
    examples = this.data.held_out["test"].examples
    predict(group, this.data.task, examples, 4, this.runtime())
    rows = watched(group)
    with group.on(examples, batch := this.data.task.collate(examples)):
        this.data.task.losses(group.model, batch).sum().backward()
    assert rows == [] and group.model.classifier.weight.grad.any()


# It gets in nobody's way


def test_a_batch_with_an_unknown_example_is_computed(variant, watched):
    this = variant("bert", LAST)
    group = this.assembled()
    rows = watched(group)
    stranger = this.data.held_out["test"].examples[0]
    mixed = [*this.data.train.examples[:3], stranger]
    batch = this.data.task.collate(mixed)
    with torch.no_grad():
        with group.on(mixed, batch):
            found = this.data.task.losses(group.model.eval(), batch)
        wanted = this.data.task.losses(group.model, batch)
    assert rows == [4, 4] and torch.equal(found, wanted)
    assert not group.prefix.store.has([stranger])


def test_generation_is_not_disturbed(variant):
    this = variant("llama", LAST, "chat")
    examples = this.data.held_out["test"].examples
    group = this.assembled([0, 1])
    with torch.no_grad():
        for parameter in trained_parameters(group.model).values():
            parameter += torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0))
    found = predict(group, this.data.task, examples, 3, this.runtime())
    group.prefix.close()
    group.prefix = None
    computed = predict(group, this.data.task, examples, 3, this.runtime())
    for one, other in zip(found, computed, strict=True):
        assert one.prediction == other.prediction and any(one.prediction)
        assert one.loss == pytest.approx(other.loss, rel=1e-5)


def test_closed_it_leaves_the_model_as_it_was(variant):
    group = variant("bert", LAST).assembled()
    block = group.model.get_submodule("bert.encoder.layer.0")
    assert "forward" in vars(block)
    group.prefix.close()
    assert "forward" not in vars(block)


def test_a_model_that_fails_halfway_is_not_remembered_wrongly(variant):
    """What one batch was to leave behind must not stand in for another."""
    this = variant("bert", LAST)
    group = this.assembled()
    examples = this.data.train.examples
    with pytest.raises(ZeroDivisionError), group.on(examples[:4], this.data.task.collate(examples[:4])):
        raise ZeroDivisionError
    batch = this.data.task.collate(examples[4:8])
    with torch.no_grad():
        outside = this.data.task.losses(group.model.eval(), batch)
        with group.on(examples[4:8], batch):
            inside = this.data.task.losses(group.model, batch)
    assert torch.allclose(inside, outside, atol=1e-5)


# Room


def test_what_is_too_large_for_memory_is_mapped_from_disk(variant, monkeypatch, tmp_path):
    mapped = []
    from_file = torch.from_file
    monkeypatch.setattr(torch, "from_file", lambda *args, **more: [mapped.append(args), from_file(*args, **more)][1])
    in_memory = variant("bert", LAST, evaluations=2).run([0], "memory")[0]
    assert mapped == []
    monkeypatch.setattr(module, "IN_MEMORY", 1000)
    this = variant("bert", LAST, evaluations=2)
    on_disk = this.run([0], "disk")[0]
    assert len(mapped) >= 3, "training, validation and test"
    assert far(on_disk, in_memory) == 0
    assert not list(tmp_path.rglob("*activations*")), "nobody but this process knows of them"


def test_an_array_is_as_large_as_its_set(tmp_path):
    """Not one position more, in memory as on disk."""
    store = Activations(tmp_path)
    for limit in (1 << 20, 1):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "IN_MEMORY", limit)
            room = store._room((5, 7), torch.bfloat16)
        room[:] = 1
        assert room.shape == (5, 7) and room.untyped_storage().nbytes() == 70 and float(room.sum()) == 35


def packed(model):
    """The bottom's weights in few bits, as quantisation leaves them."""
    for name, value in model.named_parameters():
        if "layers.0" in name and not value.requires_grad:
            value.data = (value.data * 16).round() / 16


def other_kernel(model):
    model.config._attn_implementation = "eager"


def other_buffer(model):
    next(value for name, value in model.named_buffers() if "inv_freq" in name).mul_(0.5)


def other_setting(model):
    next(module for module in model.modules() if hasattr(module, "variance_epsilon")).variance_epsilon = 0.5
    model.config.rms_norm_eps = 0.5


@pytest.mark.parametrize("change", [packed, other_kernel, other_buffer, other_setting])
def test_a_bottom_that_computes_otherwise_remembers_for_itself(variant, monkeypatch, change):
    """Over one base model, and over the same examples: nothing that the plain bottom has made is taken for its own."""
    from finetune.runner import session

    this = variant("llama", LAST, "chat", replicas=1)
    before = this.assembled().prefix.store
    assert this.assembled().prefix.store is before, "another run of the same"
    plain = session.to_device

    def changed(model, *about):
        change(plain(model, *about))
        return model

    monkeypatch.setattr(session, "to_device", changed)
    assert this.assembled().prefix.store is not before
    [remembered], [computed] = this.run([0], "with"), this.like(prefix_cache=False).run([0], "without")
    assert remembered.losses == pytest.approx(computed.losses, rel=1e-5)


def test_another_way_of_batching_remembers_for_itself(variant):
    from finetune.tasks.batching import Batching

    this = variant("llama", LAST, "chat")
    before = this.assembled().prefix.store
    this.data.task.batching = Batching.SAME_LENGTH
    assert this.assembled().prefix.store is not before


WIDE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}


@pytest.mark.parametrize("family", ["SqueezeBert", "Funnel"])
def test_what_is_not_laid_out_by_position_is_not_remembered(tmp_path, family):
    """Channels before positions, or fewer positions than went in."""
    size = tiny.save_tokenizer(tmp_path / "model")
    shapes = {
        "SqueezeBert": {**WIDE, "intermediate_size": 64, "embedding_size": 32},
        "Funnel": {"d_model": 32, "n_head": 4, "d_head": 8, "d_inner": 64, "block_sizes": [1, 1]},
    }
    config = getattr(transformers, f"{family}Config")(vocab_size=size, pad_token_id=0, **shapes[family])
    torch.manual_seed(0)
    transformers.AutoModelForMaskedLM.from_config(config).save_pretrained(tmp_path / "model")
    this = Variant.of(tmp_path / "study", tmp_path / "model", "classification", LAST)
    [came] = this.run([0], "run")
    [plain] = this.like(prefix_cache=False).run([0], "plain")
    assert far(came, plain) < 1e-4
