"""`python -m genzoo` is `genzoo`, so that launchers such as torchrun can start it."""

import sys

from genzoo.cli import main

sys.argv[0] = "genzoo"  # command.txt of a run shows a command that can be typed
main()
