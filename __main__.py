"""`python -m s4s`."""

from .training.cli.main import main

if __name__ == "__main__":
    main(prog_name="s4s")
