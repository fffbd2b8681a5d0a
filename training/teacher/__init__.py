"""The teacher, its pairs, and the windows of partial denoising."""
