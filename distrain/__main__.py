"""The command `distrain`, also as `python -m distrain`.

Decides: what happens before any slow import. Never: parses arguments.

    $ distrain train --data data --run runs/1

`distrain train` handles requests to stop within its first hundredths of a second, before it imports the command line.
"""

import sys


def main() -> int:
    """Run the command of this process's arguments, and return its exit code."""
    try:
        from distrain.cluster.signals import listen_for_stop

        stop = listen_for_stop() if sys.argv[1:2] == ["train"] else None
        from distrain.cli.streams import guard_streams

        output = guard_streams()
        from distrain.cli.main import main as run_command

        return run_command(stop=stop, output=output)
    except KeyboardInterrupt:  # during the imports
        print("distrain: interrupted; nothing was begun", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
