"""`python -m s4s` as test_parallel.py starts it in several processes, where a torchvision may be odd."""

import sys

from s4s.training.cli.main import main
from tests.k_diffusion_real import import_torchvision

if __name__ == "__main__":
    import_torchvision()
    main(sys.argv[1:])
