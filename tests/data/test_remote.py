"""Files elsewhere: networks that fail, servers that send whole files, addresses with secrets, other file systems."""

import aiohttp
import fsspec
import pytest
from pydantic import ValidationError

from finetune.core.errors import InputError
from finetune.core.paths import cache_folder
from finetune.core.progress import Progress
from finetune.data import remote
from finetune.data.addresses import is_remote, secret_in, shown, unbraced
from finetune.data.options import Portion, Source
from finetune.data.sources import read
from finetune.recipe.paths import anchored
from finetune.recipe.tree import Node, Origin
from tests.served import cut_short, numbered, serving, silent, sometimes, write_parquet

AT = "data.train.path"


@pytest.fixture
def served(tmp_path, monkeypatch):
    monkeypatch.setenv("FINETUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(remote, "WAIT", 0.001)
    write_parquet(tmp_path / "rows.parquet", numbered(0, 60, 4000))
    with serving(tmp_path) as found:
        yield found


def texts(path, **options):
    return [text.split()[1] for text in read(Source(path=path, **options), "data.train", 0)["text"]]


ALL = [str(number) for number in range(60)]


# --- networks


@pytest.mark.parametrize("status", [500, 503, 429, 408])
def test_a_server_that_is_busy_is_asked_again(served, status):
    served.fault = sometimes(3, lambda handler: handler.refuse(status))
    assert texts(served.url("rows.parquet")) == ALL


@pytest.mark.parametrize("fault", [cut_short, lambda handler: handler.hang_up()], ids=["cut short", "hung up"])
def test_an_answer_that_breaks_off_is_asked_for_again(served, fault):
    served.fault = sometimes(3, fault)
    assert texts(served.url("rows.parquet")) == ALL


def test_a_server_that_says_nothing_is_asked_again(served, monkeypatch):
    monkeypatch.setattr(remote, "READ", 0.2)
    fsspec.filesystem("http").clear_instance_cache()
    served.fault = sometimes(1, silent)
    assert texts(served.url("rows.parquet")) == ALL


def test_a_server_that_stays_silent_is_given_up(served, monkeypatch, refused):
    monkeypatch.setattr(remote, "READ", 0.05)
    monkeypatch.setattr(remote, "TRIES", 2)
    fsspec.filesystem("http").clear_instance_cache()
    served.fault = silent
    with refused(AT, "cannot be read", "run the same command again"):
        texts(served.url("rows.parquet"))


@pytest.mark.parametrize("fault", [lambda handler: handler.refuse(503), lambda handler: handler.hang_up()])
def test_a_server_that_stays_busy_is_given_up(served, refused, fault):
    asked = []
    served.fault = lambda handler: asked.append(handler.command) or fault(handler)
    with refused(AT, "rows.parquet' cannot be read", "run the same command again"):
        texts(served.url("rows.parquet"))
    assert len(asked) in (
        2 * remote.TRIES,
        4 * remote.TRIES,
    )  # in two ways, and twice where one hangs up


@pytest.mark.parametrize(
    ("status", "said"),
    [(404, "there is no 'http"), (403, "the server answers 403"), (401, "the server answers 401"), (410, "410")],
)
def test_what_will_not_change_is_not_asked_for_again(served, refused, status, said):
    asked = []
    served.fault = lambda handler: asked.append(handler.command) or handler.refuse(status)
    with refused(AT, said):
        texts(served.url("rows.parquet"))
    assert len(asked) == 2


def test_nobody_is_there(refused, monkeypatch):
    monkeypatch.setattr(remote, "WAIT", 0)
    with refused(AT, "'http://127.0.0.1:9/rows.parquet' cannot be read", "check the network"):
        texts("http://127.0.0.1:9/rows.parquet")


# --- servers


class Heard(Progress):
    def __init__(self):
        super().__init__()
        self.said = []

    def say(self, text):
        self.said.append(text)


@pytest.mark.parametrize("streaming", [True, False])
def test_a_server_that_sends_whole_files_only(served, streaming):
    served.ignores_ranges = True
    with Heard() as progress:
        found = texts(served.url("rows.parquet"), **({"streaming": True, "limit": 60} if streaming else {}))
    assert found == ALL
    assert progress.said == [
        f"{served.url('rows.parquet')}: the server sends whole files only, so that all of it is fetched"
    ]
    assert len(served.ranges) == 2  # the second time to the end
    texts(served.url("rows.parquet"))


def test_a_small_file_of_a_server_that_sends_whole_files_only(served):
    """The answer to what is asked for first is all of it, which says nothing of parts."""
    write_parquet(served.folder / "few.parquet", numbered(0, 12))
    served.ignores_ranges = True
    for _ in range(2):
        assert texts(served.url("few.parquet")) == ALL[:12]


def test_a_server_that_begins_to_send_whole_files(served, refused):
    def fault(handler):
        served.ignores_ranges = len(served.ranges) > 3
        return False

    served.fault = fault
    with refused(AT, "rows.parquet' cannot be read", "range requests"):
        texts(served.url("rows.parquet"))


def test_what_is_no_parquet_file(served, tmp_path, refused):
    (tmp_path / "page.parquet").write_text("<html>" * 100)
    content = (tmp_path / "rows.parquet").read_bytes()
    (tmp_path / "cut.parquet").write_bytes(content[: len(content) // 2])
    (tmp_path / "none.parquet").write_bytes(b"")
    for name in ("page", "cut", "none"):
        with refused(AT, f"{name}.parquet' is not a readable parquet file"):
            texts(served.url(f"{name}.parquet"))


def test_a_broken_row_group_is_told(served, tmp_path, refused):
    content = bytearray((tmp_path / "rows.parquet").read_bytes())
    content[4:60] = bytes(56)
    (tmp_path / "broken.parquet").write_bytes(content)
    with refused(AT, "broken.parquet' is not a readable parquet file"):
        texts(served.url("broken.parquet"))


def test_another_file_system(tmp_path, monkeypatch, refused):
    monkeypatch.setenv("FINETUNE_CACHE", str(tmp_path / "cache"))
    system = fsspec.filesystem("memory")
    for number in range(3):
        path = write_parquet(tmp_path / f"{number}.parquet", numbered(number * 20, 20))
        system.pipe_file(f"/bucket/shard-{number}.parquet", path.read_bytes())
    assert texts("memory://bucket/shard-*.parquet") == texts("memory://bucket/shard-{0..2}.parquet") == ALL
    assert len(texts("memory://bucket/shard-[01].parquet", streaming=True, limit=30)) == 30
    with refused(AT, "nothing matches 'memory://bucket/other-*.parquet'"):
        texts("memory://bucket/other-*.parquet")
    with refused(AT, "there is no 'memory://bucket/other.parquet'"):
        texts("memory://bucket/other.parquet")


def test_protocols_that_are_not_there(refused):
    with refused(AT, "'nothing://' cannot be read here"):
        texts("nothing://bucket/rows.parquet")


# --- addresses


def test_addresses():
    assert is_remote("https://host/x") and is_remote("S3://bucket") and not is_remote("sqlite:rows.db")
    assert shown("https://a:b@host/x.parquet?token=c") == "https://host/x.parquet"
    assert list(unbraced("a-{08..11}.{x,y}")) == [f"a-{n}.{e}" for n in ("08", "09", "10", "11") for e in "xy"]
    assert list(unbraced("a-{0..2}?t=${T}")) == [f"a-{n}?t=${{T}}" for n in range(3)]
    assert Portion(path="https://host/set/rows-00.parquet?download=true").title == "rows-00"


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("https://me:word@host/x.parquet", "@"),
        ("https://word@host/x.parquet", "@"),
        ("https://host/x.parquet?a=1&token=word", "token"),
        ("https://bucket/x.parquet?X-Amz-Signature=word", "X-Amz-Signature"),
        ("https://blob/x.parquet?sv=1&sig=word", "sig"),
    ],
)
def test_secrets_are_not_written_down(address, name):
    assert name in secret_in(address)
    with pytest.raises(ValidationError, match=r"would be written down with every study; write \$\{NAME\}"):
        Source(path=address)
    assert not secret_in(address.replace("word", "${NAME}"))
    assert not secret_in("https://host/x.parquet?download=true&author=me") and not secret_in(
        "hf://datasets/a/b@main/x.parquet"
    )


def test_a_variable_of_the_environment_is_sent_and_never_shown(served, monkeypatch, refused):
    asked = []
    served.fault = lambda handler: asked.append(handler.path) and False
    path = served.url("rows.parquet?token=${READING}")
    with refused(AT, "needs the environment variable READING"):
        texts(path)
    monkeypatch.setenv("READING", "hidden-word")
    assert texts(path) == ALL and asked[0] == "/rows.parquet?token=hidden-word"
    (cache_folder() / "streams").rename(cache_folder() / "former")
    served.fault = lambda handler: handler.refuse(403)
    with refused(AT, "the server answers 403") as seen:
        texts(path)
    assert "hidden-word" not in str(seen.problem) and "READING" not in str(seen.problem)
    served.fault = None
    with refused(AT) as seen:
        texts(served.url("${READING}/none.parquet"))
    assert "hidden-word" not in str(seen.problem) and "${READING}" in str(seen.problem)
    files = [path for path in cache_folder().rglob("*") if path.is_file()]
    assert files and not any(b"hidden-word" in path.read_bytes() for path in files)


def test_a_library_that_repeats_the_address_is_cut(served, monkeypatch):
    monkeypatch.setenv("READING", "hidden-word")
    [found] = remote.remotes(served.url("x.parquet?token=${READING}"), "data.train")
    monkeypatch.setattr(remote, "TRIES", 1)

    def failing():
        raise aiohttp.ClientError(f"no answer from {found.path}, {found.path.partition('//')[2]}")

    with pytest.raises(InputError) as error:
        found.asked(failing)
    assert "no answer from" in str(error.value) and "hidden-word" not in str(error.value)


def test_formats_that_are_not_read_from_elsewhere():
    with pytest.raises(ValidationError, match=r"'https://host/x\.csv' is read as csv; from elsewhere only parquet"):
        Source(path="https://host/x.csv")
    with pytest.raises(ValidationError, match="only parquet files"):
        Source(path="https://host/x", format="jsonl")
    with pytest.raises(ValidationError, match="hub datasets"):
        Source(path="https://host/x.parquet", split="test")
    assert Source(path="https://host/export?id=5").kind == Source(path="s3://b/x.parquet").kind == "parquet"


def test_an_address_stays_what_it_is():
    node = Node({"path": Node("https://host/x.parquet", Origin("r.yaml"))}, Origin("r.yaml"))
    assert anchored(Source(path="https://host/x.parquet"), node).path == "https://host/x.parquet"
