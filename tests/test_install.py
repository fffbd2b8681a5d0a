"""What a host and a newcomer run first."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_install_is_silent_and_imports_nothing_heavy():
    code = "import runpy, sys; runpy.run_path('install.py', run_name='__main__'); sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_install_names_what_is_missing():
    done = subprocess.run([sys.executable, "-S", "-I", str(ROOT / "install.py")], capture_output=True, text=True)
    assert done.returncode == 0 and "lacks torch" in done.stdout


def test_ci_and_the_workflow_run_the_test_command_of_the_readme():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    command = next(line for line in readme.splitlines() if line.endswith("-m pytest") and line.startswith("python3"))
    assert command in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert command in (ROOT / ".github" / "workflows" / "tests.yml").read_text(encoding="utf-8")


def test_the_example_of_the_readme_runs(monkeypatch):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    monkeypatch.chdir(ROOT)
    names = {}
    exec(text.split("```python\n")[1].split("```")[0], names)                      # noqa: S102 (our own text)
    assert names["images"].shape == (10, 1, 28, 28) and names["images"].std() > 0.3
