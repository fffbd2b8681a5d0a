"""What the extension adds to the start of a real WebUI: a line of JSON.

    S4S_WEBUI_HOST=FOLDER PYTHON_OF_THE_HOST tests/hosts/webui/costs.py

`python -m tests.bench.proof --only cost` runs it.
"""

import json
import shutil
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent


def main() -> None:
    import s4s_webui_host as hosts
    sys.path.append(str(hosts.ROOT / "tests" / "bench" / "proof"))
    import in_process
    from start_cost import Clock
    data = hosts.make_data(Path(tempfile.mkdtemp(prefix="s4s-cost-")), checkpoint=False)
    try:
        clock = Clock()
        in_process.import_host(data)
        clock.next()
        in_process.load_script(data)
        print(f"\x1e{json.dumps(clock.told('s4s_webui_clone'))}", flush=True)
    finally:
        shutil.rmtree(data, ignore_errors=True)


if __name__ == "__main__":
    sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parents[2])]
    import conftest
    conftest.import_clone()
    main()
