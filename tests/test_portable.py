"""Every module can be imported where only what all systems have is there."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
CODE = """
import importlib, importlib.abc, os, signal, sys
import accelerate, albumentations, filelock, numpy, psutil, timm, torch, torch.multiprocessing, typer     # Theirs is their own affair.
ABSENT = {"fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "syslog"}

class Windows(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name in ABSENT:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

for name in ABSENT:
    sys.modules.pop(name, None)
sys.meta_path.insert(0, Windows())
for owner, names in ((os, ("sched_getaffinity", "fork", "getuid", "memfd_create", "O_DIRECTORY", "register_at_fork", "WNOHANG")), (signal, ("SIGUSR1", "SIGKILL", "SIGCHLD", "SIGBUS"))):
    for name in names:
        if hasattr(owner, name):
            delattr(owner, name)
for name in sys.argv[1:]:
    importlib.import_module(name)
"""


def test_every_module_is_imported_without_what_only_posix_has() -> None:
    paths = [path.relative_to(ROOT).with_suffix("") for path in sorted((ROOT / "i2i").rglob("*.py"))
             if path.name != "__main__.py" and path.parent.name != "studio"]       # Gradio asks os.name, which is not changed here.
    done = subprocess.run([sys.executable, "-c", CODE, *(".".join(path.parts).removesuffix(".__init__") for path in paths)],
                          capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-3000:]
