"""The least that grading a submission can cost: a fork, the student's own cells, and the hidden calls.

    python benchmarks/floor.py WORK.json

WORK.json holds a list of submissions, each `{"cells": [source, …], "calls": [request, …]}`. A process imports what
the sandbox's parent imports, and forks a child for each: no walls, no channel, nothing encoded, judged or stored. It
prints the CPU seconds for one of them, parent and child together.
"""

import json
import os
import resource
import sys
from pathlib import Path
from typing import Any

from ftgrade.sandbox import worker


def done_inside(work: dict[str, Any]) -> None:
    """Run the cells and make the calls, as assertions in the notebook would."""
    (shell,) = worker.SHELLS
    shell.enter()
    for source in work["cells"]:
        worker.run(source, shell)
    for request in work["calls"]:
        try:
            called(request, shell.user_ns)
        except BaseException:  # a wrong submission fails here, as it may
            continue


def called(request: dict[str, Any], namespace: dict[str, Any]) -> None:
    arguments = [worker.decode(item) for item in request["arguments"]]
    keywords = {name: worker.decode(item) for name, item in request["keywords"].items()}
    observe = None
    if request["build"]:
        arguments, observe = worker.load_build(request["build"])(*arguments)
    value = namespace[request["function"]](*arguments, **keywords)
    if observe is not None:
        observe()
    if request["backward"]:
        worker.gradients(value, list(arguments))


def cpu_seconds() -> float:
    both = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in both)


def main() -> None:
    submissions = json.loads(Path(sys.argv[1]).read_text())
    worker.preload()
    worker.SHELLS[0].take_over()
    sys.meta_path.insert(0, worker.ImportFilter())
    memory = worker.own_memory()
    list(worker.collapse_pages(memory))
    before = cpu_seconds()
    for work in submissions:
        pid = worker.fork()
        if pid == 0:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            done_inside(work)
            os._exit(0)
        os.waitpid(pid, 0)
    print((cpu_seconds() - before) / len(submissions))


if __name__ == "__main__":
    main()
