"""`python -m genzoo` is `genzoo`, so that launchers such as torchrun can start it."""

from genzoo.cli import main

main()
