"""The command line: `python -m benchmarks`. It decides who runs what, and shows what came out."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path
from typing import NoReturn

from .children import ChildFailed
from .profiling import profile
from .report import machine, print_table, write_json
from .rounds import Pair, run_rounds
from .sides import ECHO, PeerMissing, Side, node_side, our_side
from .workloads import WORKLOADS, plan

# Results of the last run stay here, out of git.
_RESULTS = Path(__file__).parent / "results.json"

# Processes that want a core before anything has begun; more, and the figures say something about them, too.
_IDLE_LOAD = 0.5


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="capnweb_py against npm capnweb on Node: the same work, in turn."
    )
    parser.add_argument("--quick", action="store_true", help="2 rounds of less work, in less than a minute")
    parser.add_argument("--rounds", type=positive_number, metavar="N", help="how many rounds (5, or 2 with --quick)")
    parser.add_argument("--mixed", action="store_true", help="also our client with Node's server, and the reverse")
    parser.add_argument("--backend", choices=("asyncio", "trio"), default="asyncio", help="our event loop")
    parser.add_argument("--output", type=Path, default=_RESULTS, metavar="FILE", help="where the figures go, as JSON")
    parser.add_argument(
        "--profile",
        choices=[workload.name for workload in WORKLOADS],
        metavar="WORKLOAD",
        help="run nothing but this, on our side, and show where the time goes",
    )
    arguments = parser.parse_args()
    if not arguments.output.absolute().parent.is_dir():
        parser.error(f"--output {arguments.output}: there is no such folder")
    return arguments


def positive_number(text: str) -> int:
    """A command line's number of rounds."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("there is at least one round")
    return number


def _pairs(ours: Side, node: Side, quick: bool, mixed: bool) -> list[Pair]:
    everything = plan(quick)
    messages = {name: everything[name] for name in ("sequential", "concurrent100", "concurrent1000")}
    pairs = [
        Pair("ours", ours, ours, everything, idle=True),
        Pair("Node", node, node, everything, idle=True),
        Pair("echo", ECHO, ECHO, messages),
    ]
    if mixed:
        pairs += [Pair("ours to Node", ours, node, everything), Pair("Node to ours", node, ours, everything)]
    return pairs


def _compare(arguments: argparse.Namespace) -> None:
    where = machine()
    if where["load"] > _IDLE_LOAD:
        _tell(f"this machine is busy (load {where['load']}): figures drift, look at the ratios over several runs")
    pairs = _pairs(our_side(arguments.backend), node_side(), arguments.quick, arguments.mixed)
    rounds: int = arguments.rounds or (2 if arguments.quick else 5)
    figures = run_rounds(pairs, rounds, _tell)
    print_table(figures, pairs)
    write_json(arguments.output, figures, pairs, rounds, where)
    _tell(f"all figures: {arguments.output}")


def _tell(text: str) -> None:
    print(text, file=sys.stderr)


def _terminated(_signal: int, _frame: object) -> NoReturn:
    """End as on an error, so that the children end first."""
    sys.exit(143)


def main() -> int:
    """Run the command line. Returns the exit status: 1 if a process failed, 2 if there is nothing to compare with."""
    arguments = _arguments()
    signal.signal(signal.SIGTERM, _terminated)
    try:
        if arguments.profile is not None:
            profile(arguments.profile, arguments.backend, arguments.quick)
        else:
            _compare(arguments)
    except PeerMissing as error:
        _tell(str(error))
        return 2
    except ChildFailed as error:
        _tell(f"the run was ended: {error}")
        return 1
    except KeyboardInterrupt:
        _tell("interrupted")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
