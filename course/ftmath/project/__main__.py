"""The grader's program: `python -m ftmath.project` reads a hand-in from standard input and writes its scorecard.

The input is one JSON object: `seeds`, `rules`, and the files `adapter` and `card` in base64. The output is one too.
The process limits its own memory and processor time first, so that a hand-in can end nothing but this process.
"""

import base64
import json
import resource
import sys

import torch

from ftmath.project.scoring import answer

PROCESSOR_SECONDS, MEGABYTES = 120, 2_000


def limit(seconds: int, megabytes: int) -> None:
    """Limit this process's processor time, and its private memory where the system can; it may open no new file."""
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_DATA, (megabytes * 2**20, megabytes * 2**20))


def main() -> int:
    limit(PROCESSOR_SECONDS, MEGABYTES)
    torch.set_num_threads(1)  # the last digits must not depend on the machine's cores
    request = json.load(sys.stdin)
    adapter, card = (base64.b64decode(request[name]) for name in ("adapter", "card"))
    json.dump(answer(request, adapter, card), sys.stdout, allow_nan=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
