"""What each launcher puts into the environment becomes rank and size."""

from __future__ import annotations

import pytest

from distrain.world import World, find_world


@pytest.mark.parametrize(
    ("environ", "world"),
    [
        ({}, World(0, 1)),
        ({"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "4"}, World(1, 4)),
        ({"PMI_RANK": "2", "PMI_SIZE": "3"}, World(2, 3)),
        ({"HOROVOD_RANK": "0", "HOROVOD_SIZE": "2"}, World(0, 2)),
        # Horovod's own numbers count where it runs under mpirun.
        (
            {
                "HOROVOD_RANK": "1",
                "HOROVOD_SIZE": "2",
                "OMPI_COMM_WORLD_RANK": "5",
                "OMPI_COMM_WORLD_SIZE": "8",
            },
            World(1, 2),
        ),
        ({"PMI_RANK": "2"}, World(0, 1)),
        ({"PMI_RANK": "two", "PMI_SIZE": "3"}, World(0, 1)),
        ({"PMI_RANK": "-1", "PMI_SIZE": "3"}, World(0, 1)),
        ({"PMI_RANK": "", "PMI_SIZE": ""}, World(0, 1)),
        # A broken pair does not hide a whole one.
        ({"HOROVOD_RANK": "x", "HOROVOD_SIZE": "2", "PMI_RANK": "1", "PMI_SIZE": "3"}, World(1, 3)),
    ],
)
def test_world_of_an_environment(environ, world):
    assert find_world(environ) == world
