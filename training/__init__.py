"""The S4S trainer: distils a preset for one model. On the command line: `s4s`, or `python -m s4s`."""
