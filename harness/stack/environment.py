"""``make env``: the checkout's own Python environment from the committed lock. Runs on a bare Python: standard library only."""

from __future__ import annotations

import hashlib
import os
import sys
import threading
from pathlib import Path

from harness.errors import HarnessError
from harness.stack import cache, python_env
from harness.stack.home import home_dir
from harness.stack.workshop import Workshop

ROOT = Path(__file__).parents[2]
_LOCK = "requirements.lock"
_STAMP = ".voxproof-stamp"


def ensure(shop: Workshop, root: Path = ROOT) -> bool:
    """Makes ``.venv`` hold what the lock names and this checkout, importable in place. False: it did already."""
    environment = root / ".venv"
    wanted = _digest(root)
    key = "env-" + hashlib.sha256(str(environment).encode()).hexdigest()[:12]
    if _stamp(environment) == wanted:
        return False
    with cache.lock(shop, key, what=str(environment)):
        if _stamp(environment) == wanted:
            return False
        environment.mkdir(exist_ok=True)
        (environment / _STAMP).unlink(missing_ok=True)
        python_env.environment(shop, environment, root / _LOCK, doing="Python environment .venv")
        shop.run(
            [
                python_env.uv(shop), "pip", "install", "--quiet", "--no-deps", "--no-build-isolation",
                "--python", environment / python_env.AGENT_PYTHON, "--editable", root,
            ],
            doing="Python environment .venv: voxproof itself",
            cwd=root,
            changes={"VIRTUAL_ENV": None},
        )  # fmt: skip
        (environment / _STAMP).write_text(wanted)
    return True


def _digest(root: Path) -> str:
    """Of everything that the environment depends on."""
    parts = (sys.version, str(python_env.interpreter()), (root / _LOCK).read_text(), (root / "pyproject.toml").read_text())
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _stamp(environment: Path) -> str | None:
    path = environment / _STAMP
    is_usable = os.access(environment / python_env.AGENT_PYTHON, os.X_OK)  # its interpreter may have been removed since
    return path.read_text() if path.exists() and is_usable else None


def main() -> int:
    """Exit code 2 with a sentence if the machine lacks something."""

    def tell(sentence: str) -> None:
        sys.stderr.write(f"env: {sentence}\n")
        sys.stderr.flush()

    try:
        ensure(Workshop(home=home_dir(), environ=os.environ, progress=tell, stop=threading.Event()))
    except HarnessError as error:
        tell(str(error))
        return 2
    except KeyboardInterrupt:
        tell("interrupted; run make env again")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
