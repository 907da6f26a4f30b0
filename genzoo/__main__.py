"""`python -m genzoo` is `genzoo`, so that launchers such as torchrun can start it."""

import sys

sys.argv[0] = "genzoo"  # command.txt of a run shows a command that can be typed
try:
    from genzoo.cli import main

    main()
except KeyboardInterrupt:  # Ctrl-C while everything is still being imported
    sys.exit(130)
