"""One text made of another."""

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
