"""Bytes to text, and which encoding to advise where they are not text in the one that the recipe names.

An encoding is named only where it gives plausible text and no other one does: every file is valid latin-1, and most
are nonsense in it.
"""

from __future__ import annotations

import codecs
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
"""Byte order marks, and the encodings that they announce."""

BINARY = (
    (b"PK\x03\x04", "a zip archive or an Excel workbook", "unpack it, or export it as csv"),
    (b"\x1f\x8b", "compressed with gzip", "end its name with that, as in `rows.csv.gz`"),
    (b"BZh", "compressed with bzip2", "end its name with that, as in `rows.csv.bz2`"),
    (b"\xfd7zXZ", "compressed with xz", "unpack it"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd", "end its name with that, as in `rows.csv.zst`"),
    (b"\xd0\xcf\x11\xe0", "an old Excel workbook", "save it as .xlsx, or export it as csv"),
    (b"ARROW1", "an Arrow file", "write it as parquet"),
    (b"FEA1", "a Feather file", "write it as parquet"),
    (b"Obj\x01", "an Avro file", "write it as parquet"),
    (b"%PDF", "a PDF file", "export its text"),
)
"""How files that hold no text begin, what they are, and what to do."""

NULS = 0.1
"""Share of NUL characters from which on a text is no text: UTF-16 read as something else has a half."""
FEW = 1e-3
"""Share of wrong characters up to which replacing them is worth a thought."""
HEAD = 1 << 20
"""Bytes of a file that are looked at to tell its encoding."""

LONE_SURROGATE = re.compile("[\ud800-\udfff]")
"""Half of a pair: no character, and not to be written in any encoding."""
_UTF8 = re.compile(rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}")

_WESTERN = (
    "àâæçéèêëîïôœùûüÿ",  # French
    "äöüßé",  # German
    "áéíñóúüïç",  # Spanish, Catalan
    "áâãàçéêíóôõúü",  # Portuguese
    "àèéìíîòóùú",  # Italian
    "åäöæøéü",  # Danish, Norwegian, Swedish, Finnish
    "áðéíóúýþæö",  # Icelandic
    "éëïöüèêáóç",  # Dutch
)
"""Letters that the languages of cp1252 add to the alphabet. What mixes them is in another encoding."""
_MARKS_OF_TEXT = "‘’“”„‚–—…•€£§©®™°«»¿¡´·½¼¾ªº\xa0\xad†×"


class Written(Protocol):
    """The options of a source that reading its text takes."""

    @property
    def encoding(self) -> str:
        """Text encoding."""

    @property
    def encoding_errors(self) -> str:
        """Give what is done about bytes that are not valid in it: `strict` or `replace`."""

    @property
    def names(self) -> list[str] | None:
        """Column names, where the file has no header line."""

    @property
    def part(self) -> str | None:
        """Name of the table, where the file has several."""

    @property
    def split(self) -> str | None:
        """Name of the split, where there are several."""


class NotText(ValueError):
    """Bytes that are not text in the encoding of their source: what was found, and at which byte."""

    def __init__(self, found: str, position: int = 0):
        super().__init__(found)
        self.found, self.position = found, position


def is_encoding(name: str) -> bool:
    """Tell whether Python knows a text encoding by this name in which files are written; those of host names, or that
    only rename bytes, are none."""
    try:
        return isinstance("\n".encode(name), bytes) and isinstance(b"\xff".decode(name, "replace"), str)
    except (LookupError, ValueError):  # ValueError: it knows no `replace`, or has a NUL in its name
        return False


def decode(content: bytes, source: Written, begins: bool = True) -> str:
    """The text of a file, or of the part with which it ``begins``, without its byte order mark; raises NotText, and
    LookupError for the encoding."""
    codec = codecs.lookup(source.encoding).name
    for mark, name in MARKS if begins else ():
        if content.startswith(mark):
            if not codec.startswith(name):
                raise NotText(f"it begins with the byte order mark of {name}, and is read as {source.encoding}")
            break
    try:
        text = content.decode(source.encoding, source.encoding_errors)
    except UnicodeDecodeError as error:
        what = f"byte 0x{content[error.start]:02X} at position {error.start}"
        raise NotText(f"{what} is not valid {source.encoding}", error.start) from error
    text = text.removeprefix("\ufeff") if begins else text
    if text.count("\0") > NULS * len(text):
        raise NotText(f"read as {source.encoding}, it is full of NUL characters")
    if lone := LONE_SURROGATE.search(text):
        raise NotText(f"read as {source.encoding}, it has half of a surrogate pair, {code_point(lone[0])}")
    return text


def code_point(character: str) -> str:
    """``U+200B``."""
    return f"U+{ord(character):04X}"


def advise(contents: Sequence[bytes], source: Written) -> str:
    """Advise how to read ``contents``, files of which some are not text in the source's encoding."""
    beyond = [content for content in contents if not content.isascii() or b"\0" in content]
    found = {guess(content) for content in beyond}
    if len(found) == 1 and (name := found.pop()) and codecs.lookup(name) != codecs.lookup(source.encoding):
        if name == "utf-8":
            return "it is UTF-8: take `encoding` out, or set `encoding: utf-8`"
        reads = _sample("\n".join(content[:HEAD].decode(name, "ignore") for content in beyond).removeprefix("\ufeff"))
        return f"set `encoding: {name}`, if this is what it should read: '{reads}'"
    advice = "its encoding cannot be told"
    if "utf-8" in found:
        advice = "other files of the folder are UTF-8"
    advice += "; save it as UTF-8" + ("" if "utf-8" in found else ", or set `encoding` to what it was written in")
    texts = [content.decode(source.encoding, "replace") for content in contents]
    wrong, total = sum(text.count("\ufffd") for text in texts), sum(map(len, texts))
    if wrong <= max(FEW * total, 1) and not any("\0" in text for text in texts):
        advice += f"; `encoding_errors: replace` puts U+FFFD in {wrong} place{'' if wrong == 1 else 's'}"
    return advice


def guess(content: bytes) -> str | None:
    """The one encoding in which ``content`` is plausible text; None where that is none, or several."""
    for mark, name in MARKS:
        if content.startswith(mark):
            return name
    content = content[:HEAD]
    names = [name for name, plausible in _CANDIDATES if any(map(plausible, _decoded(content, name)))]
    return names[0] if len(names) == 1 else None


def _decoded(content: bytes, name: str) -> Iterator[str]:
    """The text, if it is one; a character that the head of a file cuts in two is passed over."""
    for end in range(4):
        try:
            text = content[: len(content) - end].decode(name)
        except UnicodeDecodeError:
            if len(content) < HEAD:
                return
            continue
        if all(character.isprintable() or character.isspace() for character in _letters(text) | set(text)):
            yield text
        return


def _letters(text: str) -> set[str]:
    """The letters beyond ASCII, in small."""
    return {character.lower() for character in text if character.isalpha() and not character.isascii()}


def _any(text: str) -> bool:
    return True


def _wide(text: str) -> bool:
    """Tell whether it is UTF-16 of the right order: most characters are ASCII or of one alphabet, all of one plane."""
    return sum(character.isascii() for character in text) >= len(text) / 3


def _western(text: str) -> bool:
    """Tell whether it is words of ASCII letters with a few accents of one language, and marks where marks stand."""
    if _UTF8.search(text.encode("cp1252", "replace")):
        return False
    accents, beyond = _letters(text), {character for character in text if not character.isascii()}
    if not all(character.isalpha() or character in _MARKS_OF_TEXT for character in beyond):
        return False
    # A capital amid small letters, three accents in a row, or a sign within a word: another encoding's letters.
    if re.search(
        r"[a-zà-öø-ÿ][À-ÖØ-ÞŠŽŒŸ]|[À-ÖØ-öø-ÿŠŽŒšžœŸ]{3}|[^\W\d_](?:[„‚¿¡]|[^\w\s’'´·\-–—\x00-\x7f][^\W\d_])", text
    ):
        return False
    count = sum(character.isalpha() and not character.isascii() for character in text)
    few = count <= 0.25 * sum(map(str.isalpha, text))
    return few and any(accents <= set(alphabet) for alphabet in _WESTERN)


def _japanese(text: str) -> bool:
    names = [unicodedata.name(character, "?") for character in text if not character.isascii()]
    kana = sum(name.startswith(("HIRAGANA", "KATAKANA")) for name in names)
    known = sum(name.startswith(("CJK UNIFIED", "FULLWIDTH", "IDEOGRAPHIC", "LEFT ", "RIGHT ")) for name in names)
    return kana >= 0.2 * len(names) > 0 and kana + known >= 0.9 * len(names)


def _cyrillic(text: str) -> bool:
    letters = [character.lower() for character in text if character.isalpha() and not character.isascii()]
    others = {character for character in text if not character.isascii() and not character.isalpha()}
    if not letters or not others <= {*_MARKS_OF_TEXT, "№"} or not all("а" <= letter <= "ї" for letter in letters):
        return False
    # Words of one alphabet, capitals in front or throughout, and vowels in their usual share.
    mixed = re.search(r"[A-Za-z][А-яЁё]|[А-яЁё][A-Za-z]|[а-яё][А-ЯЁ]", text)
    vowels = sum(letter in "аеёиіоуыэюяїє" for letter in letters) / len(letters)
    return mixed is None and len(letters) >= 4 and 0.25 <= vowels <= 0.6


_CANDIDATES: tuple[tuple[str, Callable[[str], bool]], ...] = (
    ("utf-8", _any),
    ("utf-16-le", _wide),
    ("utf-16-be", _wide),
    ("cp1252", _western),
    ("cp932", _japanese),
    ("euc_jp", _japanese),
    ("cp1251", _cyrillic),
    ("koi8-r", _cyrillic),
    ("cp866", _cyrillic),
)


def _sample(text: str) -> str:
    """The first word with something beyond ASCII, or the first words, and what stands around it."""
    place = re.search(r"[^\x00-\x7f]", text)
    start = max(place.start() - 20, 0) if place else 0
    return " ".join(text[start : start + 40].split())
