"""The baselines: classical solvers on every schedule that suits a model, and their errors."""
