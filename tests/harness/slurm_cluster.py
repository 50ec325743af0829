"""A real SLURM of two nodes on this machine, in a folder of its own.

Decides: configuration, start and stop of its daemons. Never: touches a SLURM of the machine: key, sockets, state and
logs are in the folder, and the ports are free ports. Each node has its own host name.

    with running_cluster(folder) as cluster:
        job = cluster.submit("launch/slurm.sbatch", "--data", "D", options=["--nodes=2"], path=["/opt/bin"])
        cluster.wait_for(job, lambda facts: facts["JobState"] == "COMPLETED")
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from free_ports import free_ports

NODES = ("n1", "n2")
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol", "srun", "unshare", "mount")
PACKAGES = "Debian: slurmctld slurmd slurm-client munge libpmix-dev"
PMIX = ("lib/*/pmix2/lib/libpmix.so", "lib/*/libpmix.so", "lib*/libpmix.so")  # what srun --mpi=pmix may load, in /usr
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PATIENCE = 140  # seconds until a job must have reached the state that a test waits for
OVER = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "PREEMPTED", "NODE_FAIL")
KILL_WAIT = 6  # seconds from the cancellation of a job until SLURM kills it

# Jobs of partition `urgent` preempt jobs of `normal`, which get the warning and a grace time.
CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmctldParameters=preempt_send_user_signal
SlurmUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
SlurmdParameters=config_overrides
TmpFS={folder}/tmp-%n
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=batch_sched_delay=0,bf_interval=1,sched_interval=1
GresTypes=gpu
KillWait={kill_wait}
MinJobAge=3600
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
NodeName=n1 NodeAddr=127.0.0.1 Port={ports[1]} CPUs=64 CoresPerSocket=64 Gres=gpu:4
NodeName=n2 NodeAddr=127.0.0.1 Port={ports[2]} CPUs=64 CoresPerSocket=64 Gres=gpu:4
PartitionName=normal Nodes=n1,n2 Default=YES MaxTime=60 PriorityTier=1 GraceTime=60
PartitionName=urgent Nodes=n1,n2 MaxTime=60 PriorityTier=2
"""

# In its own namespaces a node has its own host name, and an /etc/hosts that knows the name.
START_NODE = 'hostname "$1" && mount --bind "$2/hosts" /etc/hosts && exec slurmd -D -N "$1" -f "$2/slurm.conf"'


@dataclass
class Cluster:
    """A running cluster, as its clients see it."""

    folder: Path
    daemons: list[subprocess.Popen] = field(default_factory=list)

    def environment(self, *path: Path | str) -> dict[str, str]:
        """Return the environment of a user's shell on this cluster; `path` comes before the system's programs."""
        own = {"PATH": os.pathsep.join([*map(str, path), SYSTEM_PATH]), "SLURM_CONF": str(self.folder / "slurm.conf")}
        return {"TMPDIR": str(self.folder / "tmp"), "LANG": "C.UTF-8", "TF_CPP_MIN_LOG_LEVEL": "3", **own}

    def run(self, *command: object, path: Sequence[Path | str] = (), **settings: object) -> str:
        """Run a command of SLURM, which must succeed, and return its output."""
        done = subprocess.run(
            [str(word) for word in command],
            env=self.environment(*path),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            **settings,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def submit(self, script: Path | str, *arguments: object, **settings: object) -> str:
        """Submit a job and return its number. `options` are options of sbatch; its shell has `path` and `cwd`."""
        options = settings.pop("options", [])
        return self.run("sbatch", "--parsable", *options, script, *arguments, **settings).strip()

    def facts(self, job: str) -> dict[str, str]:
        """Return what SLURM shows of a job: JobState, ExitCode, Restarts, ..."""
        words = self.run("scontrol", "show", "--oneliner", "job", job).split()
        return dict(word.partition("=")[::2] for word in words)

    def wait_for(self, job: str, reached: Callable[[dict[str, str]], bool]) -> dict[str, str]:
        """Wait until `reached(facts)`, and return the facts of the job."""
        deadline = time.monotonic() + PATIENCE
        while not reached(facts := self.facts(job)):
            assert time.monotonic() < deadline, f"job {job} is still {facts}\n{self.log()}"
            time.sleep(0.1)
        return facts

    def ended(self, job: str) -> dict[str, str]:
        """Wait until the job is over and its nodes are free, and return its facts."""
        return self.wait_for(job, lambda facts: facts["EndTime"] != "Unknown" and facts["JobState"] in OVER)

    def processes(self, job: str = "") -> dict[int, str]:
        """Return the command lines of this job, or of all jobs and clients of this cluster, by process id."""
        marks = {f"SLURM_CONF={self.folder}/slurm.conf".encode(), *([f"SLURM_JOB_ID={job}".encode()] if job else [])}
        found = {}
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if marks <= set((process / "environ").read_bytes().split(b"\0")):
                    found[int(process.name)] = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        return found

    def log(self) -> str:
        """Return the last lines of the daemons' logs."""
        texts = (path.read_text(errors="replace").splitlines()[-15:] for path in sorted(self.folder.glob("slurm*.log")))
        return "\n".join("\n".join(lines) for lines in texts)


def why_not() -> str:
    """Return why this machine cannot start a cluster; empty if it can."""
    if os.geteuid() != 0:
        return "starting SLURM needs root"
    missing = [program for program in PROGRAMS if shutil.which(program, path=SYSTEM_PATH) is None]
    if not any(any(Path("/usr").glob(pattern)) for pattern in PMIX):
        missing.append("libpmix.so")
    return f"not installed: {', '.join(missing)} ({PACKAGES})" if missing else ""


@contextlib.contextmanager
def running_cluster(folder: Path) -> Iterator[Cluster]:
    """Run a cluster in this empty folder, and stop it at the end; a job that leaves processes is an error."""
    cluster = Cluster(folder)
    try:
        _start(cluster)
        yield cluster
        cluster.run("scancel", "--user=root")
        _wait_until(cluster, lambda: not cluster.processes())
    finally:
        for daemon in reversed(cluster.daemons):
            daemon.terminate()
            daemon.wait(timeout=60)


def _start(cluster: Cluster) -> None:
    folder = cluster.folder
    for name in ("state", "tmp", *(f"{kind}-{node}" for kind in ("spool", "tmp") for node in NODES)):
        (folder / name).mkdir()
    key = folder / "munge.key"
    key.write_bytes(secrets.token_bytes(128))
    key.chmod(0o400)
    for number in range(4):
        os.mknod(folder / f"gpu{number}", 0o20600, os.makedev(1, 3))  # SLURM requires devices
    (folder / "gres.conf").write_text(f"NodeName=n1,n2 Name=gpu File={folder}/gpu[0-3]\n")
    (folder / "hosts").write_text("127.0.0.1 localhost\n127.0.1.1 n1\n127.0.1.2 n2\n")
    host = socket.gethostname().partition(".")[0]
    ports = free_ports(3)
    text = CONFIGURATION.format(folder=folder, host=host, ports=ports, kill_wait=KILL_WAIT)
    (folder / "slurm.conf").write_text(text)

    files = {"key-file": key.name, "socket": "munge.socket", "pid-file": "munge.pid", "log-file": "munge.log"}
    places = [f"--{name}={folder / file}" for name, file in {**files, "seed-file": "munge.seed"}.items()]
    _start_daemon(cluster, "munged", "--foreground", "--force", *places)
    _wait_until(cluster, (folder / "munge.socket").exists)
    _start_daemon(cluster, "slurmctld", "-D", "-f", folder / "slurm.conf")
    for node in NODES:
        _start_daemon(cluster, "unshare", "--uts", "--mount", "sh", "-c", START_NODE, "sh", node, folder)
    _wait_until(cluster, lambda: cluster.run("sinfo", "--noheader", "--partition=normal", "--format=%D%T") == "2idle\n")


def _start_daemon(cluster: Cluster, *command: object) -> None:
    with (cluster.folder / "daemons.out").open("a") as out:
        environment = {"PATH": SYSTEM_PATH}
        arguments = [str(word) for word in command]
        process = subprocess.Popen(arguments, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
    cluster.daemons.append(process)


def _wait_until(cluster: Cluster, true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline, (cluster.folder / "daemons.out").read_text() + cluster.log()
        time.sleep(0.1)
