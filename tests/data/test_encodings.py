"""An encoding is named where the text is plausible in it and in no other, and never where it gives garbage."""

import pytest

from finetune.data.encodings import advise, guess
from finetune.data.options import Source

AT = "data.train.path"

TEXTS = {
    "french": "Le café était fermé, l’été dernier ; ça coûte 5 €.",
    "german": "Größe und Straße, überall schöne Häuser – für 5 €",
    "spanish": "¿Qué tal, señor? Mañana iré al médico.",
    "english": "It’s “fine” — really",
    "czech": "Příliš žluťoučký kůň úpěl ďábelské ódy",
    "polish": "Mówię, że są tu łódki i żółte kwiaty, a także jaźń",
    "turkish": "Çok güzel bir şey, ılık su ve ağaç",
    "russian": "Привет, как дела? Это простой текст на русском языке.",
    "japanese": "これは日本語のテキストです。カタカナもある。漢字",
    "chinese": "这是中文文本，没有假名。我们今天去学校。",
    "traditional": "這是中文文本，沒有假名。我們今天去學校。",
    "korean": "이것은 한국어 텍스트입니다. 오늘 학교에 갑니다.",
    "greek": "Καλημέρα, τι κάνεις;",
    "hebrew": "שלום עולם",
}


def content(language, encoding):
    return ("text,label\n" + f"{TEXTS[language]},a\n" * 4).encode(encoding, "replace")


@pytest.mark.parametrize(
    "language, encoding, named",
    [
        ("french", "cp1252", "cp1252"),
        ("german", "cp1252", "cp1252"),
        ("spanish", "latin-1", "cp1252"),
        ("english", "cp1252", "cp1252"),
        ("french", "utf-8", "utf-8"),
        ("french", "utf-16", "utf-16"),
        ("russian", "utf-16", "utf-16"),
        ("english", "utf-16-le", "utf-16-le"),
        ("french", "utf-16-be", "utf-16-be"),
        ("chinese", "utf-32", "utf-32"),
        ("japanese", "cp932", "cp932"),
        ("japanese", "euc_jp", "euc_jp"),
        ("russian", "cp1251", "cp1251"),
        ("russian", "koi8-r", "koi8-r"),
        ("russian", "cp866", "cp866"),
    ],
)
def test_what_is_named_reads_the_text_right(language, encoding, named):
    found = guess(content(language, encoding))
    assert found == named
    assert content(language, encoding).decode(found).removeprefix("\ufeff") == content(language, "utf-8").decode()


@pytest.mark.parametrize(
    "language, encoding",
    [
        ("french", "cp850"),
        ("french", "mac_roman"),
        ("german", "mac_roman"),
        ("english", "mac_roman"),
        ("czech", "cp1250"),
        ("czech", "iso8859_2"),
        ("polish", "cp1250"),
        ("polish", "iso8859_2"),
        ("turkish", "cp1254"),
        ("russian", "iso8859_5"),
        ("chinese", "gb18030"),
        ("traditional", "big5"),
        ("korean", "euc_kr"),
        ("greek", "cp1253"),
        ("hebrew", "cp1255"),
    ],
)
def test_no_encoding_is_named_that_would_give_garbage(language, encoding):
    found = content(language, encoding)
    assert guess(found) is None
    advice = advise([found], Source(path="a.csv"))
    assert "cannot be told" in advice and "latin-1" not in advice
    assert "replace" not in advice or advice.endswith("in 0 places"), "most of its characters would be lost"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp932", "cp1251", "cp1252"])
@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
def test_following_the_advice_reads_the_file(load, refused, encoding, name):
    said = TEXTS[{"cp932": "japanese", "cp1251": "russian"}.get(encoding, "french")]
    row = f'{{"text": "{said}"}}\n' if name == "a.jsonl" else f'"{said}"\n'
    written = (row * 3 if name == "a.jsonl" else "text\n" + row * 3).encode(encoding)
    with refused(AT, "set `encoding: ") as seen:
        load(name, written)
    advised = seen.problem.advice.partition("`encoding: ")[2].partition("`")[0]
    assert advised != "latin-1"
    data = load(name, written, encoding=advised)
    assert list(data["text"]) == [said] * 3 and data.column_names == ["text", "example"]


def test_what_is_set_is_not_advised_again(load, refused):
    with refused(AT, "not valid ascii", "it is UTF-8: take `encoding` out"):
        load("a.csv", content("french", "utf-8"), encoding="ascii")
    broken = content("french", "cp1252") + b"\x81,a\n"
    with refused(AT, "not valid cp1252") as seen:
        load("b.csv", broken, encoding="cp1252")
    assert "encoding: cp1252" not in seen.problem.advice


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig", "utf-32"])
def test_a_mark_that_says_otherwise_is_believed(load, refused, encoding):
    # latin-1 takes every byte, and replacing takes every file: both would be read as garbage.
    with refused(AT, "byte order mark"):
        load("a.csv", content("french", encoding), encoding="latin-1", encoding_errors="replace")
    if encoding != "utf-8-sig":
        with refused(AT, "byte order mark"):
            load("b.csv", content("french", encoding), encoding_errors="replace")


def test_utf_16_without_a_mark_is_no_utf_8(load, refused):
    with refused(AT, "full of NUL characters", "encoding: utf-16-le"):
        load("a.csv", "text,label\nplain words,a\n".encode("utf-16-le"))


def test_a_mark_is_no_part_of_the_first_name_in_any_encoding(load):
    for encoding in ("utf-16-le", "utf-16-be"):
        data = load("a.csv", "\ufefftext\nword\n".encode(encoding), encoding=encoding)
        assert data.column_names == ["text", "example"]


def test_few_wrong_bytes_may_be_replaced(load, refused):
    written = "text\n" + "a line of plain and simple words\n" * 400
    with refused(AT, "0x81", "cannot be told", "`encoding_errors: replace` puts U+FFFD in 1 place"):
        load("a.csv", written.encode() + b"one \x81 here\n")


def test_a_surrogate_from_an_odd_encoding_is_refused(load, refused):
    with refused(AT, "half of a surrogate pair, U+D800"):
        load("a.csv", b"text\n\\ud800\n", encoding="unicode_escape")


@pytest.mark.parametrize(
    "start, what",
    [(b"PK\x03\x04\xff", "Excel"), (b"\x1f\x8b\xff", "gzip"), (b"ARROW1\xff", "Arrow"), (b"%PDF-1.7\xff", "PDF")],
)
def test_a_file_of_no_text_is_called_what_it_is(load, refused, start, what):
    with refused(AT, what) as seen:
        load("a.csv", start + bytes(range(256)))
    assert "encoding" not in seen.problem.advice
    with refused(AT, what) as seen:
        load("data.thing", start + bytes(range(256)))
    assert "format" not in seen.problem.advice


def test_a_parquet_file_of_another_name(load, refused, tmp_path):
    import pyarrow as pa
    import pyarrow.parquet

    pyarrow.parquet.write_table(pa.table({"text": ["a"]}), tmp_path / "a.parquet")
    with refused(AT, "set `format: parquet`"):
        load("b.thing", (tmp_path / "a.parquet").read_bytes())
    assert list(load("b.thing", (tmp_path / "a.parquet").read_bytes(), format="parquet")["text"]) == ["a"]


def test_one_file_of_a_folder_is_not_read_at_the_others_cost(tmp_path, refused):
    from finetune.data.sources import read

    for name, text in (("a", "café".encode()), ("b", "café".encode("latin-1")), ("c", b"cafe")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.txt").write_bytes(text)
    with refused(AT, "1 of 3 files", "other files of the folder are UTF-8; save it as UTF-8", "in 1 place") as seen:
        read(Source(path=str(tmp_path)), "data.train", 0)
    assert "encoding:" not in seen.problem.advice, "in which the other file would be garbage"
