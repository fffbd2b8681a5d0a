"""`python -m training` as tests/test_parallel.py starts it in several processes, where a torchvision may be odd."""

import sys

from tests.k_diffusion_real import import_torchvision
from training.commands.cli import main

if __name__ == "__main__":
    import_torchvision()
    main(sys.argv[1:])
