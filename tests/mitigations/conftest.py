"""Benches that tests of mitigations share: tasks with tiny models without dropout, which are never changed."""

import pytest

from finetune.core.runtime import make_deterministic
from finetune.tasks.chat import Chat, ChatOptions
from tests import tiny
from tests.train import workbench


@pytest.fixture(scope="session")
def topics_bench(encoder_folder):
    """Classification by a tiny BERT."""
    return workbench.classification(encoder_folder)


@pytest.fixture(scope="session")
def chat_bench(decoder_folder):
    """Chat with a tiny Llama, short questions and long ones, several of which fit into a row."""
    texts = [text for text, _ in tiny.sentences(24)]
    prompts = [" ".join([text] * (1, 1, 9)[number % 3]) for number, text in enumerate(texts)]
    answers = [" ".join(text.split()[: 1 + number % 4]) for number, text in enumerate(texts)]
    task = Chat(ChatOptions(type="chat", prompt="prompt", completion="completion"))
    return workbench._bench(task, {"prompt": prompts, "completion": answers}, 20, decoder_folder, {})


@pytest.fixture(params=["topics_bench", "chat_bench"])
def bench(request):
    """Both of them."""
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="session", autouse=True)
def _deterministic():
    """As in a study."""
    make_deterministic(True)
