"""The root file system of a pod: folders of this machine that stand for the image, and the mounts of its volumes.

    script = root_script("train-0", folder, [Mount("/tmp"), Mount("/data", data, read_only=True)])
    subprocess.run(["unshare", *ISOLATED, "/bin/sh", "-ec", script, "/tmp", "python", "--version"])

Pods mount everything of the image read-only. Their ranks are forked from the server of imports (forked_ranks.py).
"""

from __future__ import annotations

import dataclasses
import shlex
import shutil
import sys
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from forked_ranks import SOCKET
from preloaded import open_server

import distrain

USER = 1000
AS_USER = ["setpriv", "--reuid", str(USER), "--regid", str(USER), "--clear-groups", "--no-new-privs"]
AS_USER += ["--inh-caps=-all", "--bounding-set=-all", "--"]
ISOLATED = ["--uts", "--ipc", "--mount", "--pid", "--fork"]
_HARNESS = Path(__file__).resolve().parent
_REPOSITORY = _HARNESS.parents[1]
_ETC = {
    "passwd": f"root:x:0:0::/:/usr/sbin/nologin\nmpiuser:x:{USER}:{USER}::/home/mpiuser:/bin/sh\n",
    "group": f"root:x:0:\nmpiuser:x:{USER}:\n",
    "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
}


@dataclass(frozen=True)
class Mount:
    """A volume in a pod.

    Attributes:
        path: Mount point in the pod.
        source: Folder of this machine; None means a new empty folder in memory, as an emptyDir.
        read_only: Whether the pod may only read.
    """

    path: str
    source: Path | None = None
    read_only: bool = False


def write_etc(etc: Path) -> None:
    """Make the folder that a pod mounts at /etc."""
    etc.mkdir()
    for name, content in _ETC.items():
        (etc / name).write_text(content)
    shutil.copy("/etc/ld.so.cache", etc)


def root_script(name: str, own: Path, mounts: Sequence[Mount]) -> str:
    """Return a shell script that makes the root of a pod, and runs the command $@ in the directory $0."""
    root = own / "root"
    lines = [f"echo {shlex.quote(name)} >/proc/sys/kernel/hostname", f"cd {shlex.quote(str(root))}"]
    lines += ["mount -t tmpfs -o mode=755 tmpfs .", f"cd {shlex.quote(str(root))}"]
    for path in sorted(Path("/").iterdir()):
        if path.name in ("usr", "bin", "sbin") or path.name.startswith("lib"):
            if path.is_symlink():
                lines += [f"ln -s {path.readlink()} {path.name}"]
            elif path.is_dir():
                lines += _mount(Mount(str(path), path, read_only=True))
    lines += _mount(Mount("/etc", own / "etc"))
    lines += ["mkdir -m 755 proc sys dev tmp", "mkdir -p -m 755 home/mpiuser", f"chown {USER}:{USER} home/mpiuser"]
    lines += ["mount -t proc proc proc", "mount -t sysfs -o ro sysfs sys", "mount -t tmpfs -o mode=755 tmpfs dev"]
    for device in ("null", "zero", "full", "random", "urandom"):
        lines += [f"touch dev/{device}", f"mount --bind /dev/{device} dev/{device}"]
    lines += ["ln -s /proc/self/fd dev/fd", "mkdir dev/shm", "mount -t tmpfs -o mode=1777,size=64m tmpfs dev/shm"]
    for mount in [*mounts, *_image()]:  # in this order, because the checkout may be below /tmp
        lines += _mount(mount)
    lines += _forked_ranks(own)
    lines += ["mount -o remount,bind,ro etc", "mount -o remount,bind,ro ."]
    lines += [f'exec /usr/sbin/chroot . {shlex.join(AS_USER)} /bin/sh -c \'cd "$0" && exec "$@"\' "$0" "$@"']
    return "\n".join(lines)


def _image() -> list[Mount]:
    """Return the mounts that stand for the image besides Debian: Python, its environment, distrain."""
    package = Path(distrain.__file__).parent
    prefix = Path(sys.prefix)
    mounts = [Mount(sys.base_prefix, Path(sys.base_prefix)), Mount("/opt/venv", prefix), Mount(str(prefix), prefix)]
    if prefix not in package.parents:  # an editable installation
        mounts += [Mount(str(package), package)]
    mounts += [Mount("/opt/distrain/launch", _REPOSITORY / "launch")]
    packages = Path(sysconfig.get_path("purelib")).relative_to(prefix)
    mounts += [Mount(f"/opt/venv/{packages}/sklearn")]  # no part of the image; Keras would import it
    return [dataclasses.replace(mount, read_only=True) for mount in mounts]


def _forked_ranks(own: Path) -> list[str]:
    """Return shell lines that let `distrain train` be forked from the server of imports (forked_ranks.py)."""
    lines = _mount(Mount(str(Path(SOCKET).parent), open_server(USER), read_only=True))
    lines += _mount(Mount(str(_HARNESS), _HARNESS, read_only=True))
    packages = Path(sysconfig.get_path("purelib"))
    (setting,) = packages.glob("__editable__.distrain-*.pth")  # Python executes its line at each start
    own_setting = own / setting.name
    fork = f"import sys; sys.path.append({str(_HARNESS)!r}); import forked_ranks; sys.path.pop(); forked_ranks.main()"
    own_setting.write_text(f"{setting.read_text()}; {fork}\n")
    for path in (setting, "/opt/venv" / setting.relative_to(sys.prefix)):
        lines += [f"mount --bind {shlex.quote(str(own_setting))} {shlex.quote(f'.{path}')}"]
    return lines


def _mount(mount: Mount) -> list[str]:
    """Return shell lines that mount a volume below the working directory."""
    path = shlex.quote("." + mount.path)
    if mount.source is None:
        return [f"mkdir -p {path}", f"mount -t tmpfs -o mode=1777 tmpfs {path}"]
    source = shlex.quote(str(mount.source))
    lines = [f"mkdir -p {path}", f"mount --bind {source} {path}"]
    return [*lines, f"mount -o remount,bind,ro {path}"] if mount.read_only else lines
