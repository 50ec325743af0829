"""Memory that two processes map."""

from __future__ import annotations

import subprocess
import sys

import pytest
from threads_as_processes import FunctionGroup

from distrain.distribution.collectives.shared_memory import open_shared_memory

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is shared on Linux only")


def test_another_process_comes_to_the_same_memory():
    script = (
        "import sys, json\n"
        "from distrain.cluster.process_group import ProcessGroup\n"
        "from distrain.distribution.collectives.shared_memory import open_shared_memory\n"
        "offer = sys.stdin.readline().strip().encode()\n"
        "answers = iter([[offer, b''], [b'opened', b'opened']])\n"
        "class Group(ProcessGroup):\n"
        "    rank, size = 1, 2\n"
        "    def all_gather_bytes(self, content):\n"
        "        print(content.decode(), flush=True)\n"
        "        return next(answers)\n"
        "shared = open_shared_memory(Group())\n"
        "areas = shared.next_areas()\n"
        "areas[1, :3] = [7, 8, 9]\n"
        "shared.wait()\n"
        "print(areas[0, :3].tolist())\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        heard = []

        def all_gather_bytes(content):
            if not heard:
                other.stdin.write(content.decode() + "\n")
                other.stdin.flush()
            heard.append(content)
            if len(heard) == 2:
                assert [other.stdout.readline() for _ in range(2)] == ["\n", "opened\n"]
            return [content, b"opened"]

        shared = open_shared_memory(FunctionGroup(0, 2, all_gather_bytes))
        areas = shared.next_areas()
        areas[0, :3] = [1, 2, 3]
        shared.wait()
        assert areas[1, :3].tolist() == [7, 8, 9]
        assert other.communicate()[0] == "[1, 2, 3]\n"
        assert other.returncode == 0
