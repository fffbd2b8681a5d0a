"""What is distilled, and what its teacher makes of it: denoisers, pairs of noise and target, back-propagation."""
