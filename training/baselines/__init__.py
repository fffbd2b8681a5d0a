"""What a learned table has to beat: the classical solvers on every schedule that suits a model, and their errors."""
