"""The cluster file is read as strictly as a recipe, and its mistakes are told in the same way."""

from pathlib import Path

import pytest

from finetune.core.errors import InputError
from finetune.core.options import described
from finetune.launch.cluster import ClusterOptions, KubernetesOptions, read_cluster

WHOLE = """\
partition: gpu
account: lab
qos: high
gpus: a100:2
cpus: 8
memory: 32G
time: 4:00:00
modules: [cuda/12.4, gcc]
setup: [source /opt/env.sh]
environment: {HF_HOME: /scratch/hf}
container: apptainer exec --nv "my image.sif"
python: /opt/venv/bin/python
retries: 2
runs_per_task: 5
"""


def written(folder, text):
    path = folder / "cluster.yaml"
    path.write_text(text)
    return path


def problems(folder, text):
    with pytest.raises(InputError) as caught:
        read_cluster(written(folder, text))
    return [" ".join(str(problem).split()) for problem in caught.value.problems]


def test_a_whole_file(tmp_path):
    options = read_cluster(written(tmp_path, WHOLE)).options
    assert (options.partition, options.devices, options.minutes) == ("gpu", 2, 240)


@pytest.mark.parametrize("text", ["", "# nothing\n", "{}"])
def test_nothing_need_be_said(tmp_path, text):
    assert read_cluster(written(tmp_path, text)).options == read_cluster(None).options == ClusterOptions()


def test_every_mistake_is_told_at_once_with_its_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    one, two, three = problems(tmp_path, "partitoin: gpu\ncpus: 0\nmemory: lots\n")
    assert one.startswith("cluster.yaml:1: partitoin: there is no key 'partitoin' at the top of a cluster file")
    assert "did you mean 'partition'?" in one and "extends" not in one
    assert two.startswith("cluster.yaml:2: cpus: is 0, a whole number; it must be at least 1")
    assert three.startswith("cluster.yaml:3: memory: is 'lots'; it must be a number with K, M, G or T")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("gpus: two", "gpus: is 'two'; it must be a number of GPUs"),
        ("gpus: 1.5", "gpus: is 1.5, a number"),
        ("time: 2", "time: is 2 minutes, which a task needs to start and to save; it must be at least 3"),
        ("time: soon", "time: is 'soon'; it must be minutes, or a time"),
        ("modules: cuda", "modules: is 'cuda', a text; it must be a list write [cuda]"),
        ('partition: "gpu\\nx"', "partition: must be one line of printable characters"),
        ('setup: ["a\\nb"]', "setup.0: must be one line of printable characters"),
        ("container: run 'x", "container: No closing quotation"),
        ("environment: {HF_TOKEN: abc}", "environment: has HF_TOKEN, which would lie in a batch script"),
        ("environment: {'A;B': c}", "environment: has 'A;B', which cannot be the name of a variable"),
        ("environment: {OMP_NUM_THREADS: 4}", 'put it in quotes: "4"'),
        ("- gpu", "is not a cluster file"),
        ("kubernetes: {image: a, claim: b}", "kubernetes.mount: is missing"),
        ("kubernetes: {image: a, claim: b, mount: /c, imgae: d}", "kubernetes.imgae: there is no key 'imgae'"),
        ("cpus: 1\ncpus: 2", "the key 'cpus' is written twice"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path, text, said):
    [problem] = problems(tmp_path, text)
    assert said in problem


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (
            "claim: Team_1",
            "kubernetes.claim: is 'Team_1'; names in Kubernetes are small letters, digits, - and . alone",
        ),
        ("mount: team", "kubernetes.mount: is 'team'; it must be the whole path of a folder"),
        ("mount: /mnt/../team", "kubernetes.mount: is '/mnt/../team'; it must be the whole path of a folder"),
        ("secrets: {HF_TOKEN: hf_abc}", "kubernetes.secrets: has HF_TOKEN, which names no Secret and key in it"),
        ("secrets: {'A B': hf/token}", "kubernetes.secrets: has 'A B', which cannot be the name of a variable"),
        ("tolerations: [a b]", "kubernetes.tolerations: has 'a b'; a taint is KEY"),
        ("tolerations: ['a:Never']", "kubernetes.tolerations: has 'a:Never'; a taint is KEY"),
        ("node_selector: {a: b c}", "kubernetes.node_selector: has 'a: b c', which cannot be a label of a node"),
        ("gpu_resource: gpu", "kubernetes.gpu_resource: is 'gpu'; it must be a resource of nodes"),
        ("grace: 5", "kubernetes.grace: is 5, a whole number; it must be at least 30"),
        ("imgae: b", "kubernetes.imgae: there is no key 'imgae'"),
    ],
)
def test_what_cannot_be_for_kubernetes_is_refused_with_its_line(tmp_path, monkeypatch, line, said):
    monkeypatch.chdir(tmp_path)
    lines = {"image": "image: a", "claim": "claim: b", "mount": "mount: /c", line.partition(":")[0]: line}
    [problem] = problems(tmp_path, "kubernetes:\n" + "".join(f"  {each}\n" for each in lines.values()))
    assert problem.startswith(f"cluster.yaml:{2 + [*lines.values()].index(line)}: {said}"), problem
    assert "hf_abc" not in problem


@pytest.mark.parametrize(
    ("time", "minutes"),
    [(90, 90), ("90", 90), ("5:30", 5.5), ("4:00:00", 240), ("1-12", 2160), ("1-12:30", 2190), ("0-00:10:30", 10.5)],
)
def test_times_mean_what_slurm_takes_them_for(time, minutes):
    assert ClusterOptions(time=time).minutes == minutes


@pytest.mark.parametrize(
    ("path", "there"),
    [
        ("/mnt/team", True),
        ("/mnt/team/a/b", True),
        ("/mnt/teams", False),
        ("/mnt/team/../me", False),
        ("team/a", False),
    ],
)
def test_what_lies_on_the_claim(path, there):
    assert KubernetesOptions(image="a", claim="b", mount="/mnt/team").holds(path) is there


def test_the_reference_has_every_key():
    text = (Path(__file__).parents[2] / "recipes" / "REFERENCE.md").read_text(encoding="utf-8")
    table = text.partition("A cluster file is read")[2].partition("\n\n## ")[0]
    schemas = (ClusterOptions.model_json_schema(), KubernetesOptions.model_json_schema())
    rows = [f"| `{option.key}` | {option.meaning} |" for schema in schemas for option in described(schema, {})]
    assert rows == [line for line in table.splitlines() if line.startswith("| `")]
