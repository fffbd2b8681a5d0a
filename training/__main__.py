"""`python -m training`."""

from .commands.cli import main

main(prog_name="s4s")
