"""How good the hidden tests of a problem are: what they catch, what they let pass, what they cost."""

import signal
import statistics
import time
import types
import warnings
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from multiprocessing import get_context
from pathlib import Path

import torch

from ftgrade.authoring.ledger import Ledger, keep_ledger
from ftgrade.authoring.mutants import Mutant, mutants
from ftgrade.catalog import Catalog
from ftgrade.judging.bench import Bench
from ftgrade.judging.judge import CheckVerdict, Oracle, Posed, compare, local_ask, with_mistake
from ftgrade.judging.problem import Check, Mistake, calls_of
from ftgrade.judging.report import Brief
from ftgrade.judging.seeds import open_seed
from ftgrade.judging.versions import versions
from ftgrade.probing.doctor import cache_file, strongest
from ftgrade.sandbox import worker
from ftgrade.sandbox.process import Sandbox

SEEDS = [11, 12, 13]
MUTANT_SECONDS = 20
START, END = "<!-- ftgrade audit -->", "<!-- end of ftgrade audit -->"


@dataclass(frozen=True, slots=True)
class Audit:
    """What is known of one problem's hidden tests; the lists name what went wrong, and are empty where all is well."""

    stem: str
    ledger: Ledger
    mistakes: int
    mistakes_missed: tuple[str, ...]
    mutants: int
    equivalent: int
    mutants_missed: tuple[str, ...]
    reasons_unused: tuple[str, ...]
    accepted: int
    accepted_lost: tuple[str, ...]
    median_cost: float
    largest_cost: float
    milliseconds: float

    @property
    def troubles(self) -> list[str]:
        """Return a sentence for everything that falls short."""
        lines = [f"the mistake {name} keeps all its points: add a case" for name in self.mistakes_missed]
        lines += [
            f"the mutant `{name}` keeps all its points: add a case, or name it in problem.equivalent with the reason"
            for name in self.mutants_missed
        ]
        lines += [f"problem.equivalent names `{name}`, which no surviving mutant is" for name in self.reasons_unused]
        lines += [f"the accepted submission {name} loses points" for name in self.accepted_lost]
        lines += self.ledger.troubles
        lines += [f"one mistake costs {self.largest_cost:g} of 10 points"] if self.largest_cost > 5 else []
        return [f"{self.stem}: {line}" for line in lines]

    @property
    def row(self) -> str:
        """Return the README's row, without what differs from machine to machine."""
        caught = f"{self.mistakes - len(self.mistakes_missed)} / {self.mistakes}"
        killed = f"{self.mutants - self.equivalent - len(self.mutants_missed)} / {self.mutants - self.equivalent}"
        kept = f"{self.accepted - len(self.accepted_lost)} / {self.accepted}"
        promises = f"{sum(one.is_tested for one in self.ledger.entries)} / {len(self.ledger.entries)}"
        return f"| {self.stem} | {promises} | {caught} | {killed} | {self.equivalent} | {kept} | {self.median_cost:g} |"


def audit(catalog: Catalog, stems: list[str], workers: int, tick: Callable[[], object]) -> list[Audit]:
    """Audit problems side by side, each in a process of its own, and return them in order."""
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        futures = [pool.submit(audit_problem, catalog.root, stem) for stem in stems]
        for _ in as_completed(futures):
            tick()
        return [future.result() for future in futures]


def audit_problem(root: Path, stem: str) -> Audit:
    torch.set_num_threads(1)
    catalog = Catalog(root)
    oracle = Oracle(catalog, stem)
    verdicts = {mistake.name: verdicts_with(catalog, oracle, mistake) for mistake in oracle.problem.mistakes}
    costs = {name: sum(one.check.points - one.score for one in found) for name, found in verdicts.items()}
    broken = {name: tuple(lost for one in found for lost in one.broken) for name, found in verdicts.items()}
    made, survivors = surviving_mutants(catalog, oracle)
    equivalent = oracle.problem.equivalent
    missed = [name for name in survivors if not any(fnmatchcase(name, key) for key in equivalent)]
    unused = [key for key in equivalent if not any(fnmatchcase(name, key) for name in survivors)]
    return Audit(
        stem=stem,
        ledger=keep_ledger(catalog, oracle, SEEDS[0], broken),
        mistakes=len(costs),
        mistakes_missed=tuple(name for name, points in costs.items() if points == 0),
        mutants=made,
        equivalent=len(survivors) - len(missed),
        mutants_missed=tuple(missed),
        reasons_unused=tuple(unused),
        accepted=len(catalog.submissions(stem, "accepted")),
        accepted_lost=tuple(accepted_that_lose(catalog, oracle)),
        median_cost=statistics.median(costs.values()),
        largest_cost=max(costs.values()),
        milliseconds=hidden_milliseconds(catalog, oracle),
    )


# ------------------------------------------------------------------------------------------------- what is caught


def verdicts_with(catalog: Catalog, oracle: Oracle, mistake: Mistake) -> list[CheckVerdict]:
    """Return the verdicts on a reference with this one mistake."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a mistake may well write into an expanded tensor
        return oracle.judge(local_ask(with_mistake(catalog, oracle.stem, mistake)), SEEDS)


def surviving_mutants(catalog: Catalog, oracle: Oracle) -> tuple[int, list[str]]:
    """Return how many mutants of the reference there are, and the names of those that pass every case."""
    drawn = [
        (check, posed)
        for position, check in enumerate(oracle.problem.checks)
        for posed in oracle.asked(position, SEEDS)
    ]
    all_mutants = list(mutants(catalog.leaves(oracle.stem).solution.read_text("utf-8")))
    return len(all_mutants), [mutant.name for mutant in all_mutants if not is_caught(mutant, drawn)]


def is_caught(mutant: Mutant, drawn: list[tuple[Check, Posed]]) -> bool:
    """Say whether any case fails, the changed function's own cases first; what doesn't end is caught too."""
    module = types.ModuleType("mutant")
    try:
        with time_limit(MUTANT_SECONDS), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a mutant may well divide by nothing
            exec(compile(mutant.source, "<mutant>", "exec"), module.__dict__)  # noqa: S102
            ask = local_ask(module)
            ordered = sorted(drawn, key=lambda item: item[0].of != mutant.function)
            return any(
                compare(posed.case, check.same, posed.expected, tuple(ask(calls_of(posed.case))))[0] != "pass"
                for check, posed in ordered
            )
    except Exception:  # a mutant that can't even be defined is caught by its first cell
        return True


@contextmanager
def time_limit(seconds: int) -> Generator[None]:
    """Raise TimeoutError in the block after some seconds."""

    def stop(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def accepted_that_lose(catalog: Catalog, oracle: Oracle) -> Iterator[str]:
    """Yield the accepted submissions that don't get all points, judged as a student's would be."""
    seed = open_seed(oracle.stem, oracle.problem.version)
    brief = Brief(oracle.stem, [seed], [seed], versions(oracle.digest))
    sandbox = Sandbox(strongest(cache_file()))
    try:
        bench = Bench(catalog, sandbox)
        for path in catalog.submissions(oracle.stem, "accepted"):
            judgement = bench.judge(brief, path.read_bytes())
            if not judgement.checks or any(check.score != check.points for check in judgement.checks):
                yield path.stem
    finally:
        sandbox.close()


# ------------------------------------------------------------------------------------------------- what it costs


def hidden_milliseconds(catalog: Catalog, oracle: Oracle) -> float:
    """Return the CPU time that a worker spends on all hidden calls of one submission: the median of five rounds."""
    requests = [
        call.request
        for position in range(len(oracle.problem.checks))
        for posed in oracle.asked(position, SEEDS)
        for call in calls_of(posed.case)
    ]
    namespace = vars(catalog.solution(oracle.stem))
    rounds: list[float] = []
    for _ in range(6):
        start = time.process_time()
        for request in requests:
            worker.call(request, namespace)
        rounds.append(1000 * (time.process_time() - start))
    return statistics.median(rounds[1:])


# -------------------------------------------------------------------------------------------------------- the table


def markdown_table(audits: list[Audit]) -> str:
    """Return the README's table."""
    head = (
        "| problem | promises tested | mistakes caught | mutants caught | equivalent | accepted kept | median cost |\n"
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |"
    )
    return "\n".join([START, head, *(one.row for one in audits), END])


def replace_table(text: str, audits: list[Audit]) -> str:
    """Return a text with its table replaced; a text without the marks comes back as it is."""
    before, start, rest = text.partition(START)
    _, end, after = rest.partition(END)
    return f"{before}{markdown_table(audits)}{after}" if start and end else text
