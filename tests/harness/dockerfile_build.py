"""Builds stages of `k8s/Dockerfile` by buildah, and runs commands in the result as a cluster would.

    image = build("train", context=Path("."), base="debian:bookworm-slim")
    done = image.run(["distrain", "--help"], mounts={"/data": Path("data")})

Building needs root, network and Debian's package `buildah`.
"""

from __future__ import annotations

import json
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Image:
    """A built stage.

    Attributes:
        root: Folder of its root file system.
        env: Environment of commands.
        workdir: Working directory of commands.
        user: Owner of commands, as UID:GID.
        entrypoint: Words before every command.
        command: Words of the default command.
    """

    root: Path
    env: dict[str, str]
    workdir: str
    user: str
    entrypoint: list[str]
    command: list[str]

    def start(
        self, arguments: Sequence[str] = (), *, mounts: Mapping[str, Path] | None = None
    ) -> subprocess.Popen[str]:
        """Start a container: the entry point as process 1, a read-only root, an empty /tmp, no capabilities."""
        binds = []
        for path, source in (mounts or {}).items():
            (self.root / path.lstrip("/")).mkdir(parents=True, exist_ok=True)
            binds.append(f"mount --bind {shlex.quote(str(source))} {self.root}{path}")
        prepare = [
            f"mount --bind {self.root} {self.root}",
            f"mount -o remount,bind,ro {self.root}",
            f"mount -t tmpfs -o mode=1777 tmp {self.root}/tmp",
            f"mount --bind /etc/hosts {self.root}/etc/hosts",
            *binds,
        ]
        words = [*self.entrypoint, *(arguments or self.command)]
        user, group = self.user.split(":")
        who = ["setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups", "--no-new-privs"]
        who += ["--inh-caps=-all", "--bounding-set=-all"]
        command = _in_chroot(self.root, prepare, f"cd {self.workdir} && exec {shlex.join([*who, *words])}")
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(command, env=self.env, text=True, start_new_session=True, **pipes)

    def run(
        self, arguments: Sequence[str] = (), *, mounts: Mapping[str, Path] | None = None, seconds: float = 300
    ) -> subprocess.CompletedProcess[str]:
        """Run a container to its end."""
        with self.start(arguments, mounts=mounts) as process:
            try:
                out, err = process.communicate(timeout=seconds)
            finally:
                process.kill()
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def build(target: str, *, context: Path, base: str, options: Sequence[str] = ()) -> Image:
    """Build a stage of `k8s/Dockerfile`, and the stages that it needs.

    Args:
        target: Name of the stage.
        context: The repository.
        base: Image for the argument BASE of the file.
        options: Further options of `buildah build`.

    Raises:
        AssertionError: The build failed; the message holds its output.
    """
    name = f"localhost/distrain-test:{target}"
    stage = ["--target", target, "--file", str(context / "k8s" / "Dockerfile"), "--build-arg", f"BASE={base}"]
    _run(
        "buildah",
        "build",
        "--isolation=chroot",
        "--network=host",
        "--layers",
        *stage,
        *options,
        "--tag",
        name,
        str(context),
    )
    root = Path(_run("buildah", "mount", _run("buildah", "from", "--pull=never", name)))
    config = json.loads(_run("buildah", "inspect", "--type=image", name))["OCIv1"]["config"]
    env = dict(pair.split("=", 1) for pair in config["Env"])
    return Image(root, env, config["WorkingDir"], config["User"], config["Entrypoint"], config["Cmd"])


def _in_chroot(root: Path, prepare: Sequence[str], script: str) -> list[str]:
    """Return a command that runs a script in a new root, with its own process ids and mounts."""
    lines = [*prepare, f"mount -t proc proc {root}/proc", f"mount --rbind /dev {root}/dev"]
    lines.append(f"exec chroot {root} /bin/sh -ec {shlex.quote(script)}")
    isolated = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation", "private"]
    return [*isolated, "/bin/sh", "-ec", "PATH=$PATH:/usr/sbin:/sbin; " + "; ".join(lines)]


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    assert done.returncode == 0, f"{command}: {done.stdout[-4000:]}{done.stderr[-4000:]}"
    return done.stdout.strip()
