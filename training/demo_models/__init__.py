"""Two small diffusion models of MNIST digits, trained and bundled with the project."""
