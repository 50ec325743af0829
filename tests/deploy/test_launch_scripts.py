"""The launch scripts, as far as they run without an installation: syntax, usage, and refused arguments."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
SCRIPTS = [
    "launch/quickstart.sh",
    "launch/install_horovod.sh",
    "launch/single_node.sh",
    "launch/multi_node.sh",
    "launch/test.sh",
    ".ci/run",
]
SOURCED = ["launch/setup_venv.sh", "launch/ranks.sh"]
NEEDED = ["bash", "dirname", "cat", "grep", "cksum", "env"]  # what the scripts call before there is a Python


def run(script: str, *arguments: str, **settings: object) -> subprocess.CompletedProcess:
    command = [str(REPOSITORY / script), *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60, check=False, **settings
    )


@pytest.fixture
def bare_machine(tmp_path: Path) -> Path:
    """A checkout with only the scripts, and a folder `bin` with the only programs of the machine."""
    (tmp_path / "bin").mkdir()
    for name in NEEDED:
        (tmp_path / "bin" / name).symlink_to(shutil.which(name))
    shutil.copytree(REPOSITORY / "launch", tmp_path / "check out" / "launch")
    shutil.copy(REPOSITORY / "pyproject.toml", tmp_path / "check out")
    return tmp_path


def quickstart_on(machine: Path) -> subprocess.CompletedProcess:
    script = machine / "check out" / "launch" / "quickstart.sh"
    return run(str(script), env={"PATH": str(machine / "bin")}, cwd=machine)


@pytest.mark.parametrize("script", [*SCRIPTS, *SOURCED])
def test_scripts_parse(script):
    subprocess.run(["bash", "-n", str(REPOSITORY / script)], check=True)


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_run_and_print_their_usage_from_anywhere(script, tmp_path):
    assert os.access(REPOSITORY / script, os.X_OK)
    done = run(script, "--help", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Usage: launch/")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments", [["--what"], ["--np"], ["--np", "0"], ["--np", "two"], ["--np=1000"], ["-n"], ["-n", "0"], ["2"]]
)
def test_quickstart_refuses_unknown_arguments(arguments, bare_machine):
    done = run("launch/quickstart.sh", *arguments, env={"PATH": str(bare_machine / "bin")})
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "Usage: launch/quickstart.sh" in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "wrong"),
    [
        ([], "no host is named"),
        (["-H"], "no host is named"),
        (["-H", "one:2,two:x"], '"two:x"'),
        (["-H", "one:0"], '"one:0"'),
        (["-H", "one:1,-oProxyCommand=touch broken"], '"-oProxyCommand=touch broken"'),
        (["--data", "d", "-H", "one:2", "--interface", "eth0 eth1"], '"eth0 eth1"'),
        (["--hostfile", "no such file"], '"no such file"'),
    ],
)
def test_multi_node_refuses_wrong_hosts(arguments, wrong, tmp_path):
    done = run("launch/multi_node.sh", *arguments, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert wrong in done.stderr.splitlines()[0]
    assert "Usage: launch/multi_node.sh" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_without_python_the_script_says_where_to_get_it(bare_machine):
    done = quickstart_on(bare_machine)
    assert done.returncode == 2
    assert "no Python 3.11 or newer was found" in done.stderr
    assert "apt-get install python3" in done.stderr
    assert not (bare_machine / "check out" / ".venv").exists()


def test_a_python_that_is_too_old_is_passed_over(bare_machine):
    old = bare_machine / "bin" / "python3"
    old.write_text("#!/usr/bin/env bash\nexit 1\n")  # what `sys.exit(sys.version_info < (3, 11))` comes to
    old.chmod(0o755)
    done = quickstart_on(bare_machine)
    assert done.returncode == 2
    assert "no Python 3.11 or newer was found" in done.stderr


def test_a_python_without_venv_names_the_package(bare_machine):
    python = bare_machine / "bin" / "python3"
    python.write_text(
        "#!/usr/bin/env bash\n[[ $2 != *ensurepip* ]] || exit 1\n[[ $2 != *print* ]] || echo python3.12\n"
    )
    python.chmod(0o755)
    done = quickstart_on(bare_machine)
    assert done.returncode == 2
    assert "apt-get install python3.12-venv" in done.stderr


@pytest.mark.parametrize(("own_pip", "calls"), [(0, ""), (1, "-m ensurepip\n")], ids=["its pip works", "no pip"])
def test_an_environment_gets_pip_from_python_or_else_its_old_one(tmp_path, own_pip, calls):
    python, made, called = tmp_path / "python", tmp_path / "made", tmp_path / "called"
    in_environment = f'#!/usr/bin/env bash\necho "$*" >>{called}\n'
    python.write_text(
        f"""#!/usr/bin/env bash
        if [ "$2" = venv ]; then
          mkdir -p {made}/bin
          printf '%s' '{in_environment}' >{made}/bin/python
          chmod +x {made}/bin/python
        else
          exit {own_pip}
        fi
        """
    )
    python.chmod(0o755)
    called.touch()
    script = f'repository={REPOSITORY}; source "$repository/launch/setup_venv.sh"; make_venv {python} {made}'
    assert subprocess.run(["bash", "-euc", script], check=False).returncode == 0
    assert called.read_text() == calls


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_are_clean_by_shellcheck(script):
    shellcheck = Path(sys.executable).with_name("shellcheck")  # from the development extra
    subprocess.run([shellcheck, "-x", script], cwd=REPOSITORY, check=True)
