"""`python -m training`."""

from .cli import main

main(prog_name="s4s")
