"""The options of a recipe's `data:` section."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, field_validator, model_validator

from finetune.core.options import Options
from finetune.data.addresses import is_remote, secret_in, shown
from finetune.data.formats.base import FORMATS, Place, named_by, place_of

HUB = "hub:"

STREAMED = "parquet"
"""The format of files that can be streamed, and of those that are read from elsewhere."""

NO_STREAM = "streaming is for parquet files and hub datasets; leave it out: other files are read a part at a time"
NO_SPLITS = "subset and split are for hub datasets, and split for what `save_to_disk` wrote; a file has neither"

if TYPE_CHECKING:
    from typing import TypeAlias

    FormatName: TypeAlias = str
else:
    FormatName = Literal[tuple([*FORMATS.all(), "hub"])]


class Source(Options):
    """One table of examples."""

    path: str = Field(min_length=1)
    """A file in one of the formats that `format` names, of which text may be compressed (`rows.csv.gz`, `.zst`,
    `.bz2`); several of one format by a pattern (`shards/*.parquet`), in the order of their names; a sheet of a workbook
    (`book.xlsx#Sheet2`); a table of a database (`sqlite:rows.db#table`); a folder with one sub-folder of text files per
    class (columns `label`, `title`, `body`, `text`, `file`), of parquet files only, or from `save_to_disk` of datasets;
    any of them inside an installed package (`package:NAME/path`); a hub dataset (`hub:org/name@revision`); or parquet
    files elsewhere (`https://`, `s3://`, `hf://datasets/org/name/`, and what else fsspec knows), several by
    `{0000..0041}` or `{a,b}` and, but on web servers, by `*`. `${NAME}` in an address is an environment variable, which
    is where a token belongs: the path stands in the copies of the recipe that a study keeps. Messages and tables leave
    out what is behind a `?`. Rows from elsewhere are kept in the cache folder as they come, so that what was
    interrupted goes on where it was."""
    format: FormatName | None = None
    """What the file is, when its name does not say."""
    columns: dict[str, str] = Field(default_factory=dict)
    """New columns: a column's name in the file, or a template such as `"Headline of:\\n{body:.800}"`, in which
    `:.800` keeps the first 800 characters. The file's own columns stay, except one with the new column's name."""
    names: list[str] | None = Field(None, min_length=1)
    """Column names of a csv or tsv file, or of a sheet of a workbook, without a header line."""
    subset: str | None = None
    """Configuration of a hub dataset."""
    split: str | None = None
    """Split of a hub dataset, or of what `save_to_disk` wrote; `train` when not given."""
    encoding: str = "utf-8"
    """Text encoding of the file or folder."""
    encoding_errors: Literal["strict", "replace"] = "strict"
    """`replace` puts U+FFFD where bytes are not valid in the encoding; `strict` refuses them, naming the file."""
    limit: int | None = Field(None, ge=1)
    """Keep at most this many examples, drawn with the split's seed."""
    streaming: bool = False
    """Read no more than is needed for `limit` examples, which has to be given: row groups are drawn with the split's
    seed, and rows out of these. For parquet files, here or elsewhere, and hub datasets. At least 16 row groups are
    drawn, or as many as take up to 256 MB; in files that are sorted, examples are still more alike than by `limit`
    alone, and a file of one row group is read whole. A study's runs all learn from the same examples, which are read
    once. Hub datasets that are not in parquet files are shuffled by `datasets` in a buffer of 10,000 examples, of files
    in random order; they are read from the beginning when interrupted."""

    @property
    def kind(self) -> str | None:
        """Tell the format that the recipe gives, by ``format`` or by name; None: only the file itself can tell."""
        if self.format is None and self.path.startswith(HUB):
            return "hub"
        place = self.place
        if self.remote:
            known = named_by(shown(place.file))
            return self.format or place.prefix.rstrip(":") or (known.name if known else STREAMED)
        by_prefix = (name for name, each in FORMATS.all().items() if place.prefix and each.prefix == place.prefix)
        found = named_by(place.file)
        return self.format or next(by_prefix, found.name if found else None)

    @property
    def place(self) -> Place:
        """The path, taken apart."""
        return place_of(self.path, self.format)

    @property
    def remote(self) -> bool:
        """Whether it is an address and no path of this machine."""
        return is_remote(self.place.file)

    @property
    def title_path(self) -> str:
        """The path as people may see it."""
        return shown(self.path) if is_remote(self.path) else self.path

    @property
    def part(self) -> str | None:
        """Name of the table that is read, of a file that has several; None: the path does not say it."""
        return self.place.part

    @model_validator(mode="after")
    def _options_fit_the_format(self) -> Source:
        *headed, last = (name for name, each in FORMATS.all().items() if each.delimited)
        if self.names is not None and self.kind not in (*headed, last):
            files = f"{', '.join(headed)} and {last} files"
            raise ValueError(f"names is for {files} without a header line; use columns instead")
        divided = {"hub", None, *(name for name, each in FORMATS.all().items() if each.has_splits)}
        if (self.subset is not None and self.kind != "hub") or (self.split is not None and self.kind not in divided):
            raise ValueError(NO_SPLITS)
        return self

    @model_validator(mode="after")
    def _can_be_read_from_there(self) -> Source:
        if self.remote and self.kind != STREAMED:
            raise ValueError(f"'{self.title_path}' is read as {self.kind}; from elsewhere only parquet files are read")
        if self.remote and (secret := secret_in(self.path)):
            found = f"{secret} in the address of '{self.title_path}' would be written down with every study"
            raise ValueError(f"{found}; write ${{NAME}} instead, and set the environment variable NAME")
        if self.streaming and self.kind not in (STREAMED, "hub", None):
            raise ValueError(NO_STREAM)
        if self.streaming and self.limit is None:
            needed = "those of split's parts, and up to train.max_steps x train.batch_size to learn from"
            raise ValueError(f"streaming asks for a limit: how many examples to read ({needed})")
        return self


class Portion(Source):
    """One source of a mixture."""

    name: str | None = Field(None, min_length=1)
    """What it is called in reports, and in the column `portion` of its examples. Default: its file's name without
    endings, or the hub dataset's."""
    weight: float = Field(1.0, gt=0, le=1000)
    """How often its training examples are learnt from in an epoch. 2.5: twice each, and half of them, drawn with the
    split's seed, a third time; 0.1: a tenth of them. Parts that are held out are carved before, and have each once."""

    @property
    def title(self) -> str:
        """Give its name."""
        if self.name is not None:
            return self.name
        file = self.title_path.removeprefix(HUB).partition("@")[0].partition("#")[0].rstrip("/").rpartition("/")[2]
        return file.partition(".")[0] or file


class Split(Options):
    """Parts of `data.train`. Numbers below 1 are shares of all its examples, whole numbers are examples."""

    test: float = Field(0.0, ge=0)
    """Held out, never trained on. 0: none (give `data.test` or `evaluate`)."""
    validation: float = Field(0.0, ge=0)
    """Held out for choosing weights during training."""
    train: float | None = Field(None, gt=0)
    """Keep only this many of the remaining examples for training; null: all of them."""
    stratify: str | None = None
    """Column whose proportions each part keeps. Where it holds lists, such as sets of labels, each row counts with the
    rarest of its values, so that parts have their share of rare ones too."""
    group: str | None = None
    """Column whose values are never divided between parts (an author, an article, a patient). Sizes are then as near
    as whole groups allow."""
    seed: int = Field(0, ge=0)
    """Seed of the split. It does not change with the run's seed, unless the recipe's `vary` contains `split`."""

    @field_validator("test", "validation", "train")
    @classmethod
    def _share_or_count(cls, value: float | None) -> float | None:
        if value is not None and value > 1 and not float(value).is_integer():
            raise ValueError("below 1 it is a share, from 1 on a whole number of examples; this is neither")
        return value


class DataOptions(Options):
    """Which examples are learnt from, and which are held out."""

    train: Source | Annotated[list[Portion], Field(min_length=1)]
    """Training examples, and those of `split`'s parts. A list is a mixture of several sources, each with a `weight`;
    the report shows the losses of each."""
    validation: Source | None = None
    """Examples for choosing weights during training, when they are a file of their own."""
    test: Source | None = None
    """Held-out examples, when they are a file of their own; scored as the task `test`."""
    split: Split = Split()
    """How `train` is divided when validation or test are not files of their own."""
    duplicates: Literal["drop", "keep", "refuse"] = "drop"
    """Examples of `train` whose input repeats an earlier one's (letter case and spacing aside): kept, they would
    stand on both sides of a split."""
    leaks: Literal["refuse", "drop", "allow"] = "refuse"
    """Training examples whose input is also held out: refuse to start, drop them from training, or train on them
    and say so in the report."""

    @property
    def portions(self) -> dict[str, Portion]:
        """Give the sources of a mixture by name; empty where training examples have one source."""
        return {each.title: each for each in self.train} if isinstance(self.train, list) else {}

    @property
    def sources(self) -> dict[str, Source]:
        """Give everything that is read, by its recipe path."""
        own: dict[str, Source | None] = {"data.validation": self.validation, "data.test": self.test}
        if isinstance(self.train, Source):
            own = {"data.train": self.train, **own}
        else:
            own = {f"data.train.{number}": each for number, each in enumerate(self.train)} | own
        return {at: each for at, each in own.items() if each is not None}

    @model_validator(mode="after")
    def _portions_differ(self) -> DataOptions:
        names = [each.title for each in self.train] if isinstance(self.train, list) else []
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"several sources of train are called {', '.join(twice)}; give each a name")
        return self

    @model_validator(mode="after")
    def _each_part_once(self) -> DataOptions:
        for part in ("validation", "test"):
            if getattr(self, part) is not None and getattr(self.split, part):
                raise ValueError(f"{part} and split.{part} are both given; use one of them")
        return self
