"""Run code in a fresh process in which MLflow is imported already: a fork is seconds cheaper than an interpreter."""

import multiprocessing
import os
import sys
import traceback
from pathlib import Path
from typing import Any

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["mlflow", "mlflow.pyfunc", "mlflow.store.tracking.sqlalchemy_store"])


def run(code: str, cwd: Path, env: dict[str, str], first: Path) -> Any:
    """Run code in a process of its own and return what it calls `result`.

    Args:
        code: Python; it imports the kit itself.
        cwd: the working directory.
        env: all environment variables.
        first: the folder from which modules are imported first.
    """
    ours, theirs = CONTEXT.Pipe()
    process = CONTEXT.Process(target=_work, args=(code, str(cwd), env, str(first), theirs))
    process.start()
    theirs.close()
    succeeded, result = ours.recv()
    process.join()
    assert succeeded, result
    return result


def _work(code: str, cwd: str, env: dict[str, str], first: str, connection: Any) -> None:
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    sys.path.insert(0, first)
    namespace: dict[str, Any] = {}
    try:
        exec(code, namespace)
        connection.send((True, namespace.get("result")))
    except BaseException:
        connection.send((False, traceback.format_exc()))
