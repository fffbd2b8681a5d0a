"""The teacher, what it makes of noise (pairs), and the windows of partial denoising."""
