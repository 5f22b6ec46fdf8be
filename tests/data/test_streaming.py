"""Which rows a stream takes, that it reads no others, and that it goes on where it was."""

import json
import re
import threading

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from finetune.core import signals
from finetune.core.errors import InputError, Interrupted
from finetune.core.shown import LineProgress
from finetune.data import cache, hub, spool, streaming
from finetune.data.options import Source
from finetune.data.sources import read
from tests.served import numbered, serving, write_parquet

FILES, ROWS, GROUP = 4, 300, 10
SHARDS = "part-{0..3}.parquet"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("FINETUNE_CACHE", str(tmp_path / "cache"))
    for number in range(FILES):
        write_parquet(tmp_path / f"part-{number}.parquet", numbered(number * ROWS, ROWS, 2000), GROUP)
    return tmp_path


@pytest.fixture
def served(folder):
    with serving(folder) as found:
        yield found


def stream(path, limit=50, seed=0, **options):
    return read(Source(path=str(path), streaming=True, limit=limit, **options), "data.train", seed)


def numbers(data):
    return [int(re.match(r"row (\d+) ", text)[1]) for text in data["text"]]


# --- which rows


def test_the_rows_are_of_the_files_and_know_their_numbers(served):
    data = stream(served.url(SHARDS))
    assert list(data["example"]) == numbers(data) == sorted(set(numbers(data)))
    assert len(data) == 50 and data["label"][3] == "abc"[data["example"][3] % 3]


def test_the_seed_decides_and_nothing_else(served, folder, monkeypatch):
    first = stream(served.url(SHARDS))
    monkeypatch.setenv("FINETUNE_CACHE", str(folder / "other"))
    assert list(stream(served.url(SHARDS))["text"]) == list(first["text"])
    assert list(stream(folder / "part-*.parquet")["text"]) == list(first["text"])
    assert list(stream(served.url(SHARDS), seed=1)["text"]) != list(first["text"])


def test_rows_come_out_of_several_row_groups_of_several_files(served):
    groups = {number // GROUP for number in numbers(stream(served.url(SHARDS)))}
    assert len(groups) > 10 and len({group // (ROWS // GROUP) for group in groups}) == FILES


def test_every_row_is_as_likely():
    counts, sizes = np.full(40, 5), np.full(40, 100)
    taken = [streaming.drawn(counts, sizes, 20, seed) for seed in range(3000)]
    often = np.bincount(np.concatenate(taken), minlength=200)
    assert all(len(rows) == 20 and (np.diff(rows) > 0).all() for rows in taken)
    assert abs(often / 3000 - 0.1).max() < 5 * np.sqrt(0.09 / 3000)


def test_groups_of_every_size_and_limit(monkeypatch):
    counts = np.array([3, 1, 10, 0, 7])
    for limit in range(1, 22):
        rows = streaming.drawn(counts, counts * 10, limit, 3)
        assert len(set(rows.tolist())) == limit and rows.max() < 21
    monkeypatch.setattr(streaming, "MIXED_BYTES", 0)  # no more groups than are needed
    assert len(np.unique(np.repeat(range(5), counts)[streaming.drawn(counts, counts, 1, 0)])) == 1


def test_more_than_there_is_is_all_of_it_as_without_streaming(served, folder):
    data = stream(served.url(SHARDS), limit=10_000)
    assert numbers(data) == list(range(FILES * ROWS)) == list(data["example"])


def test_without_streaming_all_is_read_and_sampled_as_from_here(served, folder):
    far, near = (
        read(Source(path=path, limit=50), "data.train", 0)
        for path in (served.url(SHARDS), str(folder / "part-*.parquet"))
    )
    assert far.to_dict() == near.to_dict()


def test_a_part_of_a_mixture_may_be_a_stream(served, folder):
    from finetune.data import DataOptions, Reading, load_splits

    train = [
        {"path": served.url(SHARDS), "streaming": True, "limit": 30, "name": "far"},
        {"path": str(folder / "part-0.parquet"), "limit": 20, "weight": 2.0},
    ]
    options = DataOptions.model_validate({"train": train, "split": {"test": 10}})
    found = load_splits(options, {}, 0, Reading(["text"], lambda data, at: None))
    assert found.facts["portions"]["far"]["source"] == served.url(SHARDS)
    assert 0 < found.facts["portions"]["far"]["examples"] <= 30 and found.held_out["test"].num_rows == 10


def test_lists_objects_and_categories_come_as_from_a_whole_file(tmp_path):
    count = 200
    talks = [[{"role": "user", "content": f"row {n}"}, {"role": "assistant", "content": "a" * n}] for n in range(count)]
    topics = pa.array(["a", "b"] * (count // 2)).dictionary_encode()
    table = pa.table({"messages": talks, "topic": topics, "size": pa.array([None, 5] * (count // 2), pa.int32())})
    pq.write_table(table, tmp_path / "talks.parquet", row_group_size=7, use_dictionary=["topic"], data_page_size=64)
    whole = read(Source(path=str(tmp_path / "talks.parquet")), "data.train", 0)
    with serving(tmp_path) as served:
        data = stream(served.url("talks.parquet"), limit=30)
    assert data.features == whole.features and data.to_list() == [whole[row] for row in data["example"]]


# --- what is read


def test_no_more_is_fetched_than_footers_and_drawn_row_groups(served, folder):
    data = stream(served.url(SHARDS))
    whole = sum(path.stat().st_size for path in folder.glob("*.parquet"))
    tails = FILES * (1 << 16)
    assert served.bytes < tails + 0.2 * whole  # 16 of 120 row groups
    groups = [each for each in served.ranges if each[2] - each[1] < 1 << 15]
    assert len(groups) == len(set(groups)) == len({number // GROUP for number in numbers(data)})


def test_what_was_read_is_not_fetched_again(served, folder):
    first = stream(served.url(SHARDS))
    served.ranges.clear()
    again = stream(served.url(SHARDS))
    assert again.to_dict() == first.to_dict()
    assert [end - start for _, start, end in served.ranges] == [1 << 16] * FILES  # the footers


def test_another_file_at_the_same_address_is_read_again(served, folder):
    first = stream(served.url("part-0.parquet"))
    write_parquet(folder / "part-0.parquet", numbered(5000, ROWS, 2000), GROUP)
    again = stream(served.url("part-0.parquet"))
    assert list(again["example"]) == list(first["example"]) and set(numbers(again)) != set(numbers(first))


def test_a_file_that_changes_while_it_is_read_is_not_kept(served, folder, refused):
    path = folder / "part-1.parquet"

    def fault(handler):
        if len(served.ranges) == 3:  # other texts in the same places
            path.write_bytes(path.read_bytes().replace(b"row 4", b"row 9"))
        return False

    served.fault = fault
    with refused("data.train.path", "part-1.parquet' has changed while it was read", "again"):
        stream(served.url("part-1.parquet"))
    assert not list((folder / "cache").glob("streams/*/*.arrow"))
    assert not {number for number in numbers(stream(served.url("part-1.parquet"))) if 400 <= number < 500}


def test_nothing_is_kept_where_nothing_is_remembered(served, monkeypatch):
    monkeypatch.setenv("FINETUNE_CACHE", "")
    assert list(stream(served.url(SHARDS))["example"]) == numbers(stream(served.url(SHARDS)))


def test_what_is_read_is_told(served):
    said = []

    class Told(LineProgress):
        def say(self, text):
            said.append(text)

    with Told(None):
        stream(served.url(SHARDS))
    assert said[0].startswith("data.train: 50 of 1,200 rows, out of 15 of 120 row groups in 4 files: 0.3 MB")


def test_a_stream_is_prepared_once_although_it_is_far(served, monkeypatch):
    monkeypatch.setattr(spool, "IN_MEMORY", 1000)
    source = Source(path=served.url(SHARDS), streaming=True, limit=50)
    key = cache.key_of([("data.train", source)], [source])
    assert key and key == cache.key_of([("data.train", source)], [source])
    served.tagged = False  # then nothing says whether it is the same file
    assert cache.key_of([("data.train", source)], [source]) is None


# --- going on


@pytest.fixture
def small_pieces(monkeypatch):
    monkeypatch.setattr(streaming, "PIECE", 5000)


def test_interrupted_it_goes_on_behind_the_last_piece(served, folder, small_pieces, monkeypatch):
    whole = stream(folder / "part-*.parquet", limit=100).to_dict()
    seen, request = [], signals.StopRequest()
    token = signals._current.set(request)

    def fault(handler):
        seen.append(handler.path)
        request.requested = len(seen) > 16
        return False

    served.fault = fault
    with pytest.raises(Interrupted, match="stopped while reading"):
        stream(served.url(SHARDS), limit=100)
    signals._current.reset(token)
    [pieces] = [path for path in (folder / "cache" / "streams").iterdir() if path.is_dir()]
    kept = sorted(path.name for path in pieces.iterdir())
    assert kept and all(re.fullmatch(r"\d{6}\.arrow", name) for name in kept)
    before = set(served.ranges)
    served.ranges.clear()
    assert stream(served.url(SHARDS), limit=100).to_dict() == whole
    groups = {each for each in served.ranges if each[2] - each[1] < 1 << 15}
    assert len(groups & before) <= 2  # those of the piece that was under way
    assert len(groups) < len({number // GROUP for number in whole["example"]})


def test_a_piece_that_a_crash_has_broken_is_read_again(served, folder, small_pieces):
    first = stream(served.url(SHARDS)).to_dict()
    [broken, *_] = sorted((folder / "cache").glob("streams/*/*.arrow"))
    broken.write_bytes(b"half of a")
    assert stream(served.url(SHARDS)).to_dict() == first


def test_processes_that_start_together_fetch_once(served, small_pieces):
    found = []
    threads = [threading.Thread(target=lambda: found.append(stream(served.url(SHARDS)).to_dict())) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    groups = [each for each in served.ranges if each[2] - each[1] < 1 << 15]
    assert found[0] == found[1] == found[2] and len(groups) == len(set(groups))


# --- what is refused


def test_options_that_contradict_each_other():
    with pytest.raises(ValidationError, match=r"asks for a limit.*split's parts.*max_steps x train.batch_size"):
        Source(path="a.parquet", streaming=True)
    with pytest.raises(ValidationError, match="streaming is for parquet files and hub datasets"):
        Source(path="a.csv", streaming=True, limit=5)
    with pytest.raises(ValidationError, match="streaming is for parquet files"):
        Source(path="a.parquet", format="jsonl", streaming=True, limit=5)


def test_a_folder_of_texts_is_not_streamed(tmp_path, refused):
    (tmp_path / "texts" / "class").mkdir(parents=True)
    (tmp_path / "texts" / "class" / "a.txt").write_text("a text")
    with refused("data.train.streaming", "is read as folder", "leave it out"):
        stream(tmp_path / "texts")


def test_a_folder_of_parquet_files_is(folder, tmp_path):
    (tmp_path / "shards").mkdir()
    for path in folder.glob("part-*.parquet"):
        path.rename(tmp_path / "shards" / path.name)
    assert list(stream(tmp_path / "shards")["example"]) == numbers(stream(tmp_path / "shards" / "*"))


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"text": ["a"], "label": [1]}, "column 'label' is of type int64 in"),
        ({"text": ["a"]}, "column 'label' is not there in"),
        ({"text": ["a"], "label": ["b"], "more": [True]}, "column 'more' is of type bool in"),
    ],
)
def test_files_with_different_columns(served, folder, refused, columns, said):
    pq.write_table(pa.table(columns), folder / "part-2.parquet")
    with refused("data.train.path", said, "part-2.parquet", "part-0.parquet", "the same columns"):
        stream(served.url(SHARDS))


def test_the_order_of_columns_does_not_matter(folder):
    rows = pq.read_table(folder / "part-3.parquet").select(["label", "text"])
    pq.write_table(rows, folder / "part-3.parquet", row_group_size=GROUP)
    data = stream(folder / "part-*.parquet", limit=1200)
    assert numbers(data) == list(range(1200)) and data.column_names == ["text", "label", "example"]


def test_streams_without_rows(served, folder, refused):
    write_parquet(folder / "none.parquet", [])
    for path in (served.url("none.parquet"), folder / "none.parquet"):
        with refused("data.train.path", "has no examples"):
            stream(path)
    write_parquet(folder / "few.parquet", numbered(0, 3))
    assert list(stream(folder / "[nf]*e*.parquet")["example"]) == [0, 1, 2]


def test_a_column_that_is_not_there(served, refused):
    with refused("data.train.columns.prompt", "there is no column 'body' for the template"):
        stream(served.url(SHARDS), columns={"prompt": "{body}"})


# --- hub


@pytest.fixture
def stored(tmp_path, monkeypatch):
    """A hub dataset in a folder, with parquet files of labelled rows; streamed as from the hub."""
    (tmp_path / "set").mkdir()
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["bad", "good"])}
    )
    rows = {"text": [text for text, _ in numbered(0, 200)], "label": [number % 3 - 1 for number in range(200)]}
    data = datasets.Dataset.from_dict(rows, features=features)
    for number in range(2):
        data.shard(2, number, contiguous=True).to_parquet(tmp_path / "set" / f"train-{number}.parquet", batch_size=10)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "hub"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_hub_dataset_in_parquet_files(stored):
    data = stream("hub:./set", limit=40)
    assert list(data["example"]) == numbers(data) and len(data) == 40
    assert list(data["label"]) == [[None, "bad", "good"][number % 3] for number in numbers(data)]
    assert list(stream("hub:./set", limit=40, seed=1)["text"]) != list(data["text"])


def test_a_hub_dataset_in_other_files(stored, monkeypatch):
    lines = [json.dumps({"text": text, "label": label}) for text, label in numbered(0, 200)]
    (stored / "lines").mkdir()
    (stored / "lines" / "train.jsonl").write_text("\n".join(lines))
    monkeypatch.setattr(hub, "BUFFER", 20)
    first, again, other = (stream("hub:./lines", limit=40, seed=seed) for seed in (0, 0, 1))
    assert list(first["text"]) == list(again["text"]) != list(other["text"])
    assert len(set(numbers(first))) == 40 and numbers(first) != list(range(40))
    assert list(first["example"]) == list(range(40))


def test_a_split_that_a_hub_dataset_lacks(stored, refused):
    with refused("data.train.split", "'./set' has no split 'tain'", "did you mean 'train'?"):
        stream("hub:./set", split="tain")


def test_a_hub_dataset_that_is_not_there(refused, monkeypatch):
    with refused("data.train.path", "'org/none' cannot be loaded"):
        stream("hub:org/none@v1")


def test_interrupted_by_an_error_nothing_is_lost(served, folder, small_pieces, monkeypatch):
    from finetune.data import remote

    monkeypatch.setattr(remote, "WAIT", 0)
    served.fault = lambda handler: len(served.ranges) > 12 and handler.refuse(503)
    with pytest.raises(InputError, match="the server answers 503"):
        stream(served.url(SHARDS))
    served.fault = None
    assert stream(served.url(SHARDS)).to_dict() == stream(folder / "part-*.parquet").to_dict()
