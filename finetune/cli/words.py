"""The words of the literature and of the field's introductions, and what to write to have what they mean."""

from __future__ import annotations

from typing import NamedTuple


class Word(NamedTuple):
    """A word, or several for the same thing."""

    also: tuple[str, ...]
    """Other words for it."""
    says: str
    """What is meant by it."""
    write: str
    """What a recipe says to have it: YAML."""
    source: str
    """Where the word, or the method, is from."""


CHAT = "task: {type: chat, prompt: question, completion: answer"
PAIRS = f"{CHAT}, rejected: worse}}\nstrategy: {{type: preference"

KINDS: dict[str, Word] = {
    "full": Word(
        ("full-fine-tuning", "vanilla", "whole-model"),
        "Full fine-tuning: every weight of the pretrained model goes on learning, with a new head where the task has "
        "one. The most flexible, the most expensive, and the least stable on few examples.",
        "strategy: {type: full}",
        "Devlin et al. 2019, BERT, section 3.2",
    ),
    "partial": Word(
        ("selective", "freezing", "layer-freezing", "top-layers"),
        "Partial fine-tuning: only some weights learn, such as the last blocks, the biases or the norms; the others "
        "are frozen. What lies below the lowest of them is computed once for all seeds.",
        "strategy: {type: partial, last: 2}",
        "Lee, Tang and Lin 2019, What Would Elsa Do?, section 3",
    ),
    "adapter": Word(
        ("peft", "parameter-efficient", "additive", "adapters"),
        "Parameter-efficient fine-tuning: the pretrained weights stay, and small new ones are learnt beside them.",
        "strategy: {type: adapter, method: lora, rank: 8}",
        "Houlsby et al. 2019, section 2; Hu et al. 2021, LoRA, section 4",
    ),
    "task-specific": Word(
        ("task-specific-fine-tuning", "supervised", "downstream"),
        "Task-specific fine-tuning: the model gets the head and the loss of one task, learns from labelled examples of "
        "it, and is scored on sets of it. Here that is `task`, the `stages` that may precede it, and `evaluate`.",
        "task: {type: classification, text: text, label: label}\n"
        "evaluate: [{name: other-source, data: {path: other.csv}}]",
        "Howard and Ruder 2018, ULMFiT, section 3; Devlin et al. 2019, section 3.2",
    ),
    "linear": Word(
        ("linear-probing", "linear-probe", "feature-extraction", "head-only", "probe"),
        "Linear probing, or feature extraction: the pretrained model is frozen, and only a linear head learns. Cheap, "
        "stable, and the rival that everything else has to beat. Its relatives: `lp-ft`, and the tangent model.",
        "strategy: {type: linear}",
        "Alain and Bengio 2016; Kumar et al. 2022, section 2",
    ),
    "adaptive": Word(
        ("adaptive-rates", "adaptive-learning-rate"),
        "Two things are called adaptive fine-tuning. The learning rate adapts: it falls on a plateau, is found by the "
        "optimizer, or differs by layer. Or the model adapts to the texts of a domain before the task: that is "
        "`adaptive-domain`.",
        "strategy: {type: adaptive, method: schedule-free}",
        "Defazio et al. 2024 and Mishchenko and Defazio 2024 for rates; Ruder 2021, Recent Advances in Language Model "
        "Fine-tuning, for the other sense",
    ),
    "adaptive-domain": Word(
        ("domain-adaptive", "dapt", "tapt", "continued-pretraining", "continual-pretraining", "adaptive-fine-tuning"),
        "Domain-adaptive fine-tuning: what the model was pretrained with goes on, on unlabelled texts of the domain or "
        "of the task, before the task itself is learnt. It is a stage, trained once for all seeds.",
        "stages:\n  - {name: domain, data: {train: {path: texts.jsonl}}, task: {type: language}, train: {epochs: 1}}",
        "Gururangan et al. 2020, Don't Stop Pretraining, sections 3 and 4",
    ),
    "behavioural": Word(
        ("behavioral", "intermediate-task", "stilts", "supplementary-training"),
        "Behavioural fine-tuning: the model first learns a related labelled task of which there is more data, such as "
        "natural language inference, and then the task itself. It is a stage.",
        "stages:\n  - {name: inference, data: {train: {path: nli.csv}}, task: {type: classification}}",
        "Phang, Févry and Bowman 2018, section 2; the word is Ruder's (2021)",
    ),
    "instruction-tuning": Word(
        ("sft", "supervised-fine-tuning", "instruction", "text-to-text"),
        "Instruction tuning: a language model learns to answer requests, from pairs of prompts and answers or from "
        "whole conversations; the loss counts the answers.",
        f"{CHAT}}}\nstrategy: {{type: adapter, method: lora}}",
        "Wei et al. 2022, section 2; Ouyang et al. 2022, section 3.1",
    ),
    "alignment": Word(
        ("rlhf", "preference-tuning", "preference-optimisation"),
        "Preference tuning: a language model learns which of two answers people prefer, without a reward model and "
        "without sampling while it learns.",
        f"{PAIRS}}}",
        "Rafailov et al. 2023, section 4",
    ),
}
"""Kinds of fine-tuning."""

METHODS: dict[str, Word] = {
    "lp-ft": Word(
        ("lpft",),
        "A linear probe first, and then full tuning that starts from its head, so that the features are not distorted "
        "while the head is still random.",
        "strategy: {type: linear, mode: lp-ft}",
        "Kumar et al. 2022, section 3",
    ),
    "linearised": Word(
        ("tangent", "ntk", "linear-fine-tuning", "linearized"),
        "The model is replaced by its first-order expansion around the pretrained weights, and that is trained.",
        "strategy: {type: linear, mode: linearised}",
        "Achille et al. 2021, LQF, section 3; Ortiz-Jimenez et al. 2023, section 2",
    ),
    "bitfit": Word(
        ("bias-only",),
        "Only the biases and the head learn: about a thousandth of the weights.",
        "strategy: {type: partial, parts: bias}",
        "Ben Zaken, Ravfogel and Goldberg 2022, section 3",
    ),
    "norms": Word(
        ("norm-tuning", "ln-tuning"),
        "Only the normalisation layers and the head learn.",
        "strategy: {type: partial, parts: norm}",
        "Frankle, Schwab and Morcos 2021, section 3",
    ),
    "gradual-unfreezing": Word(
        ("ulmfit", "unfreezing"),
        "The last block learns first, then more and more of those below it.",
        "strategy: {type: partial, last: 4, unfreeze: epoch}",
        "Howard and Ruder 2018, section 3.3",
    ),
    "lora": Word(
        (),
        "The change of each chosen weight matrix is learnt as a product of two thin ones.",
        "strategy: {type: adapter, method: lora, rank: 8}",
        "Hu et al. 2021, section 4",
    ),
    "dora": Word(
        (),
        "LoRA for the direction of each weight's columns, and a learnt length beside it.",
        "strategy: {type: adapter, method: dora, rank: 8}",
        "Liu et al. 2024, section 4",
    ),
    "rslora": Word(
        (),
        "LoRA scaled by the root of the rank, so that high ranks learn too.",
        "strategy: {type: adapter, method: rslora, rank: 64}",
        "Kalajdzievski 2023, section 3",
    ),
    "lora+": Word(
        ("loraplus",),
        "LoRA with a higher learning rate for the second of its matrices.",
        "strategy: {type: adapter, method: lora+, ratio: 16}",
        "Hayou, Ghosh and Yu 2024, section 4",
    ),
    "qlora": Word(
        (),
        "LoRA beside weights that are kept in 4 bits.",
        "strategy: {type: adapter, method: qlora, rank: 8}",
        "Dettmers et al. 2023, section 3",
    ),
    "pissa": Word(
        (),
        "LoRA that starts from the largest singular vectors of each weight matrix.",
        "strategy: {type: adapter, method: pissa, rank: 8}",
        "Meng, Wang and Zhang 2024, section 3",
    ),
    "ia3": Word(
        ("(ia)3",),
        "A learnt scale for keys, values and inner activations.",
        "strategy: {type: adapter, method: ia3}",
        "Liu et al. 2022, section 3.3",
    ),
    "prompt": Word(
        ("prompt-tuning", "soft-prompt"),
        "Learnt virtual tokens before every text.",
        "strategy: {type: adapter, method: prompt}",
        "Lester, Al-Rfou and Constant 2021, section 2",
    ),
    "prefix": Word(
        ("prefix-tuning",),
        "Learnt keys and values before those of every text, in every layer.",
        "strategy: {type: adapter, method: prefix}",
        "Li and Liang 2021, section 4",
    ),
    "schedule-free": Word(
        (),
        "An optimizer that needs no schedule: it averages weights while the rate stays.",
        "strategy: {type: adaptive, method: schedule-free}",
        "Defazio et al. 2024, algorithm 1",
    ),
    "prodigy": Word(
        (),
        "An optimizer that finds the learning rate itself.",
        "strategy: {type: adaptive, method: prodigy}",
        "Mishchenko and Defazio 2024, algorithm 4",
    ),
    "plateau": Word(
        ("reduce-on-plateau",),
        "The learning rate falls when the validation score no longer improves.",
        "data: {split: {validation: 0.1}}\nstrategy: {type: adaptive, method: plateau}\ntrain: {evaluations: 10}",
        "as torch's ReduceLROnPlateau does",
    ),
    "layerwise": Word(
        ("llrd", "discriminative", "layer-wise"),
        "Lower layers learn at lower rates than higher ones.",
        "strategy: {type: adaptive, method: layerwise}",
        "Howard and Ruder 2018, section 3.2",
    ),
    "ipo": Word(
        (),
        "Identity preference optimisation: the better answer is to be ahead by a fixed amount and no more.",
        f"{PAIRS}, method: ipo}}",
        "Azar et al. 2023, equation 17",
    ),
    "orpo": Word(
        (),
        "Odds-ratio preference optimisation: learning the better answer, and raising its odds above the worse one's, "
        "without a model to compare with.",
        f"{PAIRS}, method: orpo}}",
        "Hong, Lee and Thorne 2024, equation 6",
    ),
    "kto": Word(
        (),
        "Kahneman-Tversky optimisation: each answer by itself is desirable or not.",
        f"{PAIRS}, method: kto}}",
        "Ethayarajh et al. 2024, equation 8",
    ),
    "simpo": Word(
        (),
        "Simple preference optimisation: by mean log-likelihoods and a margin, without a model to compare with.",
        f"{PAIRS}, method: simpo}}",
        "Meng, Xia and Chen 2024, equation 6",
    ),
    "setfit": Word(
        ("contrastive", "few-shot"),
        "Few-shot classification: the encoder first learns which texts have the same label, from the run's own "
        "training examples, and then a probe is solved.",
        "stages:\n  - {name: contrastive, task: {type: embedding, text: text, label: label}, train: {epochs: 1}}\n"
        "strategy: {type: linear}",
        "Tunstall et al. 2022, section 3",
    ),
    "dpo": Word(
        (),
        "Direct preference optimisation: the better answer is made likelier than the worse one, each against the "
        "untuned model.",
        f"{PAIRS}}}",
        "Rafailov et al. 2023, equation 7",
    ),
}
"""Methods that go by a name of their own."""

WORDS = KINDS | METHODS


def meant(name: str) -> str | None:
    """Find the word that ``name`` is, or is another word for; case, spaces and underscores do not count."""
    plain = "-".join(name.lower().replace("_", " ").replace("-", " ").split())
    spelt = {also: word for word, entry in WORDS.items() for also in (word, *entry.also)}
    return spelt.get(plain) or spelt.get(plain.removesuffix("-fine-tuning"))
