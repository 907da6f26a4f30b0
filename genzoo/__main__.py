"""`python -m genzoo` is `genzoo`, so that launchers such as torchrun can start it."""

import sys


def run() -> None:
    """The command line, with no traceback for Ctrl-C while everything is still being imported."""
    try:
        from genzoo.cli import main

        main()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    sys.argv[0] = "genzoo"  # command.txt of a run shows a command that can be typed
    run()
