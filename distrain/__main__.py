"""The command `distrain`, also as `python -m distrain`.

Decides: what happens before any slow import. Never: parses arguments.

    $ distrain train --data data --run runs/1

`distrain train` handles requests to stop within its first hundredths of a second, before it imports the command line.
"""

import sys

from distrain.cluster.signals import listen_for_stop


def main() -> int:
    """Run the command of this process's arguments, and return its exit code."""
    stop = listen_for_stop() if sys.argv[1:2] == ["train"] else None
    from distrain.cli.main import main as run_command

    return run_command(stop=stop)


if __name__ == "__main__":
    sys.exit(main())
