"""The S4S trainer: distils a preset for one model. `python -m training` in a clone, `s4s` once installed."""
