"""Local paths and paths inside installed packages."""

import sys
import types
from pathlib import Path

import pytest

from finetune.core.errors import InputError
from finetune.core.paths import resolve_package_path, resolve_path, resolve_paths

AT = "data.train.path"


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An installed package that must not be imported."""
    folder = tmp_path / "site" / "parcel"
    (folder / "inner").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise RuntimeError('imported')")
    (folder / "inner" / "__init__.py").write_text("raise RuntimeError('imported')")
    (folder / "model.gguf").write_text("weights")
    (folder / "inner" / "a.csv").write_text("a")
    (folder / "inner" / "b.csv").write_text("b")
    (tmp_path / "site" / "lonely.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    return folder


def problem(text, resolve=resolve_package_path):
    with pytest.raises(InputError) as error:
        resolve(text, AT)
    (found,) = error.value.problems
    assert found.path == AT
    return str(found)


def test_package_path_is_found_without_importing(package):
    assert resolve_package_path("package:parcel/model.gguf", AT) == package / "model.gguf"
    assert resolve_package_path("package:parcel/inner", AT) == package / "inner"
    assert resolve_package_path("package:parcel", AT) == package
    assert "parcel" not in sys.modules


def test_dotted_package_is_found_without_importing_its_parents(package):
    assert resolve_package_path("package:parcel.inner/a.csv", AT) == package / "inner" / "a.csv"
    assert "parcel" not in sys.modules


def test_star_matches_exactly_one(package):
    assert resolve_package_path("package:parcel/*.gguf", AT) == package / "model.gguf"
    several = problem("package:parcel/inner/*.csv")
    assert "2 paths" in several and "a.csv, b.csv" in several
    assert "nothing matches" in problem("package:parcel/*.bin")


def test_package_path_that_is_not_there(package):
    assert "did you mean" in problem("package:parcel/model.guf")
    assert "model.gguf" in problem("package:parcel/model.guf")
    assert "'no_such_parcel'" in problem("package:no_such_parcel/x")
    assert "'gt_all'" in problem("package:gt-all/x")
    assert "single module" in problem("package:lonely/x")
    assert "'..'" in problem("package:parcel/../lonely.py")


def test_module_that_was_made_without_a_file(monkeypatch):
    monkeypatch.setitem(sys.modules, "parcel_in_memory", types.ModuleType("parcel_in_memory"))
    assert "not installed" in problem("package:parcel_in_memory/x")


def test_local_path(tmp_path, monkeypatch):
    (tmp_path / "news.csv").write_text("x")
    assert resolve_path(str(tmp_path / "news.csv"), AT) == tmp_path / "news.csv"
    monkeypatch.chdir(tmp_path)
    assert resolve_path("news.csv", AT).read_text() == "x"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert resolve_path("~/news.csv", AT) == tmp_path / "news.csv"


def test_a_pattern_finds_files_in_the_order_of_their_names(tmp_path, monkeypatch):
    for name in ("b.csv", "a.csv", "a[1]/c.csv", "a[1]/in/d.csv", ".e.csv", "f.csv/g"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    names = {
        "*.csv": "ab",
        "[ab].csv": "ab",
        "a[1]/?.csv": "c",
        "a[1]/**/*.csv": "cd",
        "a[1]/c.csv": "c",
        "**/*.csv": "abcd",
    }
    monkeypatch.setenv("HOME", str(tmp_path))
    for pattern, found in names.items():
        assert sorted(path.stem for path in resolve_paths(str(tmp_path / pattern), AT)) == list(found), pattern
        assert resolve_paths(f"~/{pattern}", AT) == resolve_paths(str(tmp_path / pattern), AT)
    assert resolve_paths(str(tmp_path / "*.csv"), AT) == [tmp_path / "a.csv", tmp_path / "b.csv"]
    assert resolve_paths(str(tmp_path), AT) == [tmp_path]
    monkeypatch.chdir(tmp_path)
    assert resolve_paths("*.csv", AT) == [Path("a.csv"), Path("b.csv")]
    assert "there is no" in problem(str(tmp_path / "*.tsv"), resolve_paths)
    assert "a.csv, a[1], b.csv" in problem(str(tmp_path / "*zzz*"), resolve_paths)


def test_missing_file_names_the_one_that_was_meant(tmp_path):
    (tmp_path / "news.csv").write_text("x")
    assert f"did you mean '{tmp_path / 'news.csv'}'" in problem(str(tmp_path / "nwes.csv"), resolve_path)
    assert "holds: news.csv" in problem(str(tmp_path / "zzz"), resolve_path)
    assert "is a file, not a folder" in problem(str(tmp_path / "news.csv" / "part"), resolve_path)


def test_missing_folder_names_the_one_that_was_meant(tmp_path):
    (tmp_path / "corpus").mkdir()
    assert f"did you mean '{tmp_path / 'corpus'}'" in problem(str(tmp_path / "corpsu" / "news.csv"), resolve_path)
    assert "is empty" in problem(str(tmp_path / "corpus" / "news.csv"), resolve_path)


def test_long_listing_is_cut(tmp_path):
    for number in range(20):
        (tmp_path / f"part{number:02}").write_text("")
    assert "part07 and 12 more" in problem(str(tmp_path / "zzz"), resolve_path)


@pytest.mark.parametrize(
    "text",
    ["a" * 300, "a/" * 3000, "~nobody-there/x", "\0", "a\0b", "loop", "closed/inside", "a" * 300 + "*", "~nobody*"],
)
def test_a_path_that_cannot_be_one_is_a_path_to_nothing(tmp_path, monkeypatch, text):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "closed").mkdir(mode=0)
    try:
        for resolve in (resolve_path, resolve_paths):
            with pytest.raises(InputError, match="there is no "):
                resolve(text, "data.train.path")
    finally:
        (tmp_path / "closed").chmod(0o700)


@pytest.fixture
def linked(tmp_path, monkeypatch):
    """A package one of whose files is a link out of it, and one a link to the same file of the same package."""
    package, store = tmp_path / "site" / "linked_package", tmp_path / "store" / "linked_package"
    package.mkdir(parents=True)
    store.mkdir(parents=True)
    (package / "__init__.py").touch()
    (tmp_path / "secret.csv").write_text("text\nsecret\n")
    (store / "rows.csv").write_text("text\na\n")
    (package / "out.csv").symlink_to(tmp_path / "secret.csv")
    (package / "rows.csv").symlink_to(store / "rows.csv")
    monkeypatch.syspath_prepend(tmp_path / "site")
    return package


@pytest.mark.parametrize("inner", ["/etc/hostname", "//etc/hostname", "../secret.csv", "x/../../secret.csv", "/etc/*"])
@pytest.mark.parametrize("name", ["linked_package", "linked_package."])
def test_no_package_path_leaves_its_package(linked, name, inner):
    with pytest.raises(InputError, match="leaves its package"):
        resolve_path(f"package:{name}/{inner}", "data.train.path")


@pytest.mark.parametrize("inner", ["out.csv", "out*.csv"])
def test_a_link_out_of_a_package_is_not_followed(linked, inner):
    with pytest.raises(InputError, match=r"is a link to .*secret"):
        resolve_path(f"package:linked_package/{inner}", "data.train.path")
    assert resolve_path("package:linked_package/rows.csv", "data.train.path") == linked / "rows.csv"
