"""One project file: a mistake in it gets a sentence, and the environment changes nothing."""

import subprocess
import sys

import pytest
import yaml
from click.testing import CliRunner

from lifecycle.cli import main
from lifecycle.cluster import manifests
from lifecycle.settings import FILE, Settings, SettingsError

FEAST = {"project": "bikes", "registry": "registry.db", "provider": "local"}


def written(folder, text: str, name: str = FILE):
    (folder / name).write_text(text)
    return folder / name


@pytest.mark.parametrize(
    "text, said",
    [
        ("modle = 'm'", "modle is no setting"),
        ("folder = '/'", "folder is no setting"),
        ("[training]\nheld_out = 1.5", "training.held_out is 1.5: input should be less than 1"),
        ("[training]\nconfidence = 95", "training.confidence is 95: input should be less than 1"),
        ("[training]\nfewest = 0", "training.fewest is 0: input should be greater than or equal to 2"),
        ("[training]\ntask = 'ranking'", "training.task is 'ranking': input should be 'binary'"),
        ("[cluster]\nnamespace = 'My_Team'", "cluster.namespace is 'My_Team'"),
        ("[cluster.step]\ncpu = 'two'", "cluster.step.cpu is 'two'"),
        ("[cluster]\nrun_seconds = 0", "cluster.run_seconds is 0: input should be greater than 0"),
        ("model = ", "is no TOML"),
    ],
)
def test_a_mistake_is_named_with_file_and_setting(tmp_path, text, said):
    file = written(tmp_path, text)
    with pytest.raises(SettingsError, match=said) as raised:
        Settings.load(file)
    assert str(file) in str(raised.value)


@pytest.mark.parametrize(
    "rule, said",
    [
        ("0 6 * * 1", "wants six fields in UTC, second, minute, .*; write '0 0 6 [*] [*] 1'"),  # means 00:06
        ("hello", "wants six fields in UTC"),
        ("@weekly", "wants six fields in UTC"),
        ("TZ=Europe/Berlin 0 0 6 * * 1", "takes no time zone; write the hours in UTC"),
        ("CRON_TZ=UTC 0 6 * * 1", "takes no time zone; write the hours in UTC"),
        ("0 0 24 * * 1", "the hour is '24'; write 0 to 23"),
        ("0 0 6 0 * 1", "the day of the month is '0'; write 1 to 31"),
        ("0 0 6 * * 7", "the day of the week is '7'; write 0 to 6, or a name"),
        ("0 0 6-3 * * 1", "the hour is '6-3'"),
        ("0 0 6 * * mon-", "the day of the week is 'mon-'"),
        ("0 */0 6 * * 1", r"the minute is '\*/0'"),
        ("0 0 6 L * ?", "the day of the month is 'L'"),
        ("0 0 6 * mon 1", "the month is 'mon'"),
        ("0 0 ² * * 1", "the hour is '²'"),
    ],
)
def test_a_rule_that_kubeflow_would_read_otherwise_is_refused(rule, said):
    with pytest.raises(SettingsError, match=f"retraining.cron is '.*': .*{said}"):
        Settings(model="m").replace(retraining={"cron": rule})


@pytest.mark.parametrize("rule", ["0 0 6 * * 1", "0  */15 6-18 1,15 JAN-jun ?", "9 5/10 0 ? * mon,wed-fri/2"])
def test_a_rule_of_six_fields_is_a_schedule(rule):
    assert Settings(retraining={"cron": rule}).retraining.cron == " ".join(rule.split())


def test_the_nearest_file_counts_and_a_change_wins_over_it(tmp_path, monkeypatch):
    (tmp_path / "a" / "b").mkdir(parents=True)
    text = "[tool.lifecycle]\nmodel = 'far'\n[tool.lifecycle.cluster]\nstorage = '1Gi'"
    written(tmp_path, text, "pyproject.toml")
    written(tmp_path / "a", "[tool.other]\nx = 1", "pyproject.toml")  # has no settings
    monkeypatch.chdir(tmp_path / "a" / "b")
    found = Settings.load(cluster={"namespace": "near"})
    assert (found.model, found.folder) == ("far", tmp_path)
    assert (found.cluster.namespace, found.cluster.storage) == ("near", "1Gi")
    with pytest.raises(SettingsError, match=r"labels, label: not set\. Write a line such as `labels = "):
        found.require("model", "labels", "label")


def test_rendering_twice_gives_the_same_bytes_whatever_the_environment(tmp_path, monkeypatch):
    settings = written(
        tmp_path,
        "model = 'station_empty'\n[cluster]\nnamespace = 'bikes'\nimage = 'registry.example.org/bikes:7'\n"
        "replicas = 3\nclaim = 'bikes'\nvolume = '/bikes'\nredis = 'cache:6380'\nmlflow_uri = 'http://runs:80'",
    )
    repo = tmp_path / "feature_repo"
    repo.mkdir()
    (repo / "feature_store.yaml").write_text(yaml.safe_dump(FEAST))
    seen = []
    for variables in ({}, {"LIFECYCLE_IMAGE": "x:1", "LIFECYCLE_NAMESPACE": "x", "TZ": "Asia/Tokyo"}):
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        folder = tmp_path / str(len(seen))
        done = CliRunner().invoke(main, ["--settings", str(settings), "render", str(folder)])
        assert done.exit_code == 0, done.output
        seen.append({path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.yaml")})
    assert seen[0] == seen[1]
    text = b"".join(seen[0].values()).decode()
    for said in (
        "namespace: bikes",
        "bikes:7",
        "minReplicas: 3",
        "mountPath: /bikes",
        "cache:6380",
        "http://runs:80",
    ):
        assert said in text, said
    for default in ("ml-lifecycle:", "redis:6379", "http://mlflow:5000"):
        assert default not in text, default
    for documents in manifests.read(tmp_path / "0").values():
        assert [found for one in documents for found in manifests.problems(one)] == []


def test_a_command_whose_extra_is_not_installed_says_which():
    code = "import sys; sys.modules['kserve'] = None; from lifecycle.cli import main; main(sys.argv[1:])"
    command = [sys.executable, "-c", code, "--settings", '{"model": "m"}', "serve"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stderr == (
        'Error: kserve is not installed, and this command needs it: pip install "ml-lifecycle[serving]"\n'
    )
    assert done.returncode == 1


def test_importing_the_package_does_nothing():
    code = (
        "import atexit, os, sys; now = lambda: (dict(os.environ), atexit._ncallbacks()); before = now();"
        "import lifecycle.settings; assert before == now();"
        "print(*{'feast', 'mlflow', 'kfp'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
