"""Everything that imports ComfyUI: the dropdown rows, the nodes, and the facts they read off a loaded model."""
