"""Starts a host's launch.py in this Python: `cd HOST && python start.py [arguments of launch.py]`.

Where torchvision was built for another torch than this CPU one, its compiled operators do not load and importing it
fails; their declarations are enough for its Python part, which is all that hosts use here.
"""

import os
import runpy
import sys


def import_torchvision() -> None:
    """Make `import torchvision` work with a torch it was not built for."""
    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        import torch
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        import_torchvision.library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            import_torchvision.library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


if __name__ == "__main__":
    import_torchvision()
    sys.path[0] = os.getcwd()
    sys.argv[0] = os.path.join(os.getcwd(), "launch.py")
    runpy.run_path("launch.py", run_name="__main__")
