"""A look at the machine: what is wrong is named, with what to type; nothing is tried on the network unasked."""

import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from finetune import cli
from finetune.doctor import hub, machine, packages

ROOT = Path(__file__).parents[2]


def by_state(findings):
    found = {}
    for each in findings:
        found.setdefault(each.state, []).append(each)
    return found


def test_packages_are_held_against_the_bounds_of_our_metadata():
    assert set(by_state(packages.look_at_packages())) == {"fine"}
    versions = {"torch": "2.1.0", "peft": None}
    [torch, peft] = sorted(
        by_state(packages.look_at_packages(lambda name: versions.get(name, packages.installed(name))))["problem"],
        key=lambda each: each.found,
        reverse=True,
    )
    assert torch.found == "torch is 2.1.0, and finetune needs torch>=2.9" and torch.fix == "pip install 'torch>=2.9'"
    assert peft.found.startswith("peft is not installed, and finetune needs peft>=")


def test_an_old_python_is_a_problem():
    [found] = packages.look_at_python("3.8.1")
    assert found.state == "problem" and "needs >=3.10" in found.found and "venv" in found.fix
    [found] = packages.look_at_python("3.12.0")
    assert found.state == "fine"


def test_every_extra_says_what_it_adds_and_what_is_missing():
    provided = metadata.metadata("finetune").get_all("Provides-Extra")
    assert set(packages.EXTRAS) <= set(provided)
    found = {each.found.partition(" ")[0]: each for each in packages.look_at_extras(lambda name: None)}
    assert set(found) == set(provided)
    assert found["xlsx"].state == "note" and found["xlsx"].fix == "pip install 'finetune[xlsx]'"
    assert found["xlsx"].found == "xlsx adds data in Excel workbooks; missing: openpyxl"
    old = {"openpyxl": "2.0"}
    found = [each for each in packages.look_at_extras(lambda name: old.get(name, packages.installed(name)))]
    [xlsx] = [each for each in found if each.found.startswith("xlsx")]
    assert xlsx.state == "problem" and "openpyxl is 2.0, and it needs openpyxl>=3.1" in xlsx.found


def test_a_full_disk_and_a_folder_that_is_not_ours(tmp_path, monkeypatch):
    monkeypatch.setenv("FINETUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    roomy = dict.fromkeys([tmp_path / name for name in ("runs", "cache", "hub")], 10**12)
    assert {each.state for each in machine.look_at_disk(tmp_path / "runs", roomy)} == {"fine"}
    full = [*machine.look_at_disk(tmp_path / "runs", dict.fromkeys([tmp_path / "runs"], 10**8))]
    assert full[0].state == "problem" and "100 MB free" in full[0].found and "--output DIR" in full[0].fix
    (tmp_path / "topics.yaml").touch()
    for place in (Path("/proc/runs"), tmp_path / "topics.yaml" / "runs"):
        [studies, *_] = machine.look_at_disk(place)
        assert studies.state == "problem" and "cannot be written to" in studies.found


CACHES = ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME")


@pytest.mark.parametrize("names", [CACHES, CACHES[1:], CACHES[2:], CACHES[3:], ()])
def test_the_disk_of_the_hubs_cache_is_where_its_library_writes(tmp_path, names):
    """In a process of its own, whose library has not been told where yet."""
    code = "import sys; from pathlib import Path; from huggingface_hub.constants import HF_HUB_CACHE as hub; "
    code += "from finetune.doctor.machine import look_at_disk; print(hub); "
    code += "found = look_at_disk(Path(sys.argv[1]), {Path(hub): 1}); "
    code += 'print(*(f"{each.found}; {each.fix}" for each in found if "the hub\'s cache" in each.found))'
    environment = {name: value for name, value in os.environ.items() if name not in CACHES}
    environment |= {name: f"$PLACE/{name.lower()}" for name in names} | {"PLACE": str(tmp_path)}
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    where, said = done.stdout.splitlines()
    assert f"free in {where}, which is little; export {names[0] if names else 'HF_HOME'}=DIR," in said, done.stderr


def test_devices_and_arithmetic_are_measured():
    found = [*machine.look_at_devices(), *machine.look_at_arithmetic()]
    assert any("cores" in each.found for each in found)
    assert found[-1].found.endswith("is used") and (" float32" in found[-1].found or "GPU" in found[-1].found)


def test_more_threads_than_cores_are_a_problem(monkeypatch):
    import torch

    monkeypatch.setattr(torch, "get_num_threads", lambda: 4096)
    [found] = by_state(machine.look_at_devices())["problem"]
    assert "4096 threads" in found.found and found.fix.startswith("export OMP_NUM_THREADS=")


def test_the_hub_is_not_tried_unasked(monkeypatch, network_attempts):
    for name in hub.OFFLINE:
        monkeypatch.delenv(name, raising=False)
    [found] = hub.look_at_hub(asked=False)
    assert found.state == "note" and "not tried" in found.found and found.fix == "finetune doctor --hub"
    assert network_attempts() == []
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    [found] = hub.look_at_hub(asked=True)
    assert found.state == "problem" and found.fix == "unset HF_HUB_OFFLINE"


@pytest.mark.tries_network
def test_a_hub_that_does_not_answer_is_a_problem():
    """In a process of its own, whose library has not been told to stay off the network."""
    code = "from finetune.doctor.hub import look_at_hub; [f] = look_at_hub(True); print(f.state, f.found, f.fix)"
    environment = {name: value for name, value in os.environ.items() if name not in hub.OFFLINE}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("problem") and "does not answer" in done.stdout and "curl -I" in done.stdout


def doctor(*args, **environment):
    env = {**os.environ, "PYTHONPATH": f"{ROOT}:{os.environ['PYTHONPATH']}", **environment}
    command = [sys.executable, "-m", "finetune", "doctor", *args]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)


def test_it_reads_well_at_40_columns_and_without_a_terminal(tmp_path):
    done = doctor("--output", str(tmp_path), COLUMNS="40")
    told = done.stdout.splitlines()
    assert {"python", "packages", "devices", "arithmetic", "disk", "hub", "extras"} <= set(told)
    # What cannot be broken, such as a path or a bound, may be longer; sentences are not.
    assert [line for line in told if len(line) > 40 and len(line.split()) > 4] == []
    assert "\x1b" not in done.stdout and done.returncode in (0, 1)
    assert (told[-1] == "nothing is wrong") == (done.returncode == 0)


@pytest.mark.parametrize("package, lost", [("torch", {"devices", "arithmetic"}), ("huggingface_hub", {"hub"})])
def test_a_package_that_cannot_be_imported_is_a_problem_beside_all_others(tmp_path, package, lost):
    (tmp_path / package).mkdir()
    (tmp_path / package / "__init__.py").write_text("raise OSError('libcudart.so.13: cannot open shared object file')")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from finetune import cli; "
    code += f"sys.exit(cli.main(['doctor', '--output', {str(tmp_path)!r}]))"
    environment = {**os.environ, "COLUMNS": "300"}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    told = done.stdout.splitlines()
    said = f"{package} is installed and cannot be imported: OSError: libcudart.so.13: cannot open shared object file"
    place = next(number for number, line in enumerate(told) if said in line)
    assert told[place].startswith("  !! ") and told[place + 1] == f"     type: pip install --force-reinstall {package}"
    every = {"python", "packages", "devices", "arithmetic", "disk", "hub", "extras"}
    assert every & set(told) == every - lost


def test_json_has_every_finding_and_the_code_says_whether_there_is_a_problem(capsys, monkeypatch, tmp_path):
    code = cli.main(["doctor", "--json", "--output", str(tmp_path)])
    said = json.loads(capsys.readouterr().out)
    problems = [each for each in said["findings"] if each["state"] == "problem"]
    assert said["problems"] == len(problems) and code == bool(problems)
    assert all(each["fix"] for each in problems)
    assert cli.main(["doctor", "--json", "--output", "/proc/here"]) == 1
    said = json.loads(capsys.readouterr().out)
    assert any("cannot be written to" in each["found"] for each in said["findings"])
