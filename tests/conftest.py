"""No test reaches the network, in this process or in one it starts, and none touches the home folder's caches."""

import atexit
import gc
import os
import runpy
import shutil
import sys
import tempfile
from pathlib import Path

import hypothesis
import pytest

from tests import tiny

OFFLINE = Path(__file__).parent / "offline"

# Before anything imports a Hugging Face library, which reads these once.
scratch = Path(tempfile.mkdtemp(prefix="finetune-tests-"))
atexit.register(shutil.rmtree, scratch, ignore_errors=True)
os.environ.update(
    {name: "1" for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "HF_EVALUATE_OFFLINE", "TRANSFORMERS_OFFLINE")},
    HF_HOME=str(scratch / "huggingface"),
    HF_HUB_DISABLE_TELEMETRY="1",
    FINETUNE_CACHE=str(scratch / "finetune"),
    OMP_NUM_THREADS="1",  # threads that wait for each other on a busy machine slow tiny models down tenfold
    FINETUNE_TEST_NETWORK_LOG=str(scratch / "network.log"),
    PYTHONPATH=os.pathsep.join(filter(None, [str(OFFLINE), os.environ.get("PYTHONPATH")])),
)
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # or each process that a test starts compiles all modules anew
runpy.run_path(str(OFFLINE / "sitecustomize.py"))

# The same examples every time and on every machine, however slow it is today.
hypothesis.settings.register_profile("same", derandomize=True, deadline=None, database=None)
hypothesis.settings.load_profile("same")


LONG = (
    "launch/test_kubernetes.py",
    "test_benchmark.py",
    "export/test_real_models.py",
    "launch/test_slurm.py",
    "end_to_end/test_devices.py",
    "contracts/test_sharding.py",
    "contracts/test_replicas.py",
    "contracts/test_strategies.py",
    "contracts/test_processes.py",
    "end_to_end/test_real_models.py",
    "end_to_end/test_split.py",
    "inference/test_predict_large.py",
    "train/test_processes.py",
    "test_guides.py",
)
"""Files whose slow tests take minutes."""


def pytest_collection_modifyitems(items):
    """Begin with what takes longest, so that no worker is left with it in the end."""
    places = {Path(__file__).parent / name: number for number, name in enumerate(LONG)}
    items.sort(key=lambda item: places.get(item.path, len(LONG)))


@pytest.fixture(autouse=True)
def network_attempts(request):
    """Fails a test that tried to reach the network, even where the library it used hid the error.

    The fixture's value reads the attempts so far. Tests marked `tries_network` may make them.
    """
    log = Path(os.environ["FINETUNE_TEST_NETWORK_LOG"])
    log.unlink(missing_ok=True)

    def attempts():
        return log.read_text(encoding="utf-8").splitlines() if log.exists() else []

    yield attempts
    if request.node.get_closest_marker("tries_network") is None and attempts():
        pytest.fail("the network was tried:\n" + "\n".join(attempts()))


imported_when_frozen = 0
"""Modules, when the garbage collector was last told to leave alone all that there was."""


@pytest.fixture(autouse=True)
def quick_collection():
    """Each training ends with a garbage collection, which need not look at all that was imported by now, most of it by
    the first training of a kind."""
    global imported_when_frozen
    if len(sys.modules) != imported_when_frozen:
        imported_when_frozen = len(sys.modules)
        gc.collect()
        gc.freeze()


os.fsync = lambda file: None  # nobody needs these studies after a power cut


@pytest.fixture(autouse=True)
def quick_datasets():
    """A dataset is called after a hash of all that it holds, which takes as long as to train a tiny model on it."""
    if datasets := sys.modules.get("datasets.arrow_dataset"):
        datasets.generate_fingerprint = lambda data: datasets.generate_random_fingerprint()


@pytest.fixture(scope="session")
def encoder_folder(tmp_path_factory):
    """A tiny BERT with its tokenizer; never written to."""
    return tiny.save_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="session")
def decoder_folder(tmp_path_factory):
    """A tiny Llama with a chat template; never written to."""
    return tiny.save_decoder(tmp_path_factory.mktemp("decoder"))


@pytest.fixture
def topics(tmp_path, encoder_folder):
    """A folder with a classification recipe of two variants over 90 sentences; tests change what they test."""
    return tiny.write_topics(tmp_path, encoder_folder)


@pytest.fixture
def chats(tmp_path, decoder_folder):
    """A folder with a chat recipe over 60 prompts."""
    return tiny.write_chat_study(tmp_path, decoder_folder)
