"""Makes `python -m replay` the command `replay`."""

from replay.main import main

main(prog_name="replay")
