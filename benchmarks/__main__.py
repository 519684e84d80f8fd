"""The command line: `python -m benchmarks`. It decides what is run, and shows what came out."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path
from typing import Final, NoReturn

from .children import ChildFailed
from .compiled import compiled_folder
from .endurance import idle_sessions, scale, wear
from .endurance_report import save_endurance, sessions_table, wear_table
from .machine import machine
from .pairs import COMPILED, NODE, PURE, Wanted, choose
from .plot import draw
from .profiling import profile
from .remote import compare_remote
from .report import figures_table, mixed_table, ratios_table
from .results import load, results_of, save
from .rounds import run_rounds
from .sides import Missing, node_side, our_side, require
from .soak import soak
from .tables import print_markdown, print_table
from .workloads import WORKLOADS

_ROOT: Final = Path(__file__).parent.parent
_PLOT: Final = _ROOT / "docs" / "benchmarks.svg"

# The figures of the last full run, which are in git, and of the last quick one, which are not.
_LAST: Final = Path(__file__).parent / "last.json"
_QUICK: Final = Path(__file__).parent / "results.json"
_LAST_REMOTE: Final = _LAST.with_stem("last-remote")
_QUICK_REMOTE: Final = _QUICK.with_stem("results-remote")
_LAST_ENDURANCE: Final = _LAST.with_stem("last-endurance")
_QUICK_ENDURANCE: Final = _QUICK.with_stem("results-endurance")

# Processes that want a core before anything has begun; more, and the figures say something about them, too.
_IDLE_LOAD: Final = 0.5


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="capnweb_py against npm capnweb on Node: the same work, in turn."
    )
    parser.add_argument("--quick", action="store_true", help="2 rounds of less work, in less than a minute")
    parser.add_argument(
        "--rounds",
        type=positive_number,
        metavar="N",
        help="how many rounds (5, or 2 with --quick; 7 or 3 with --endurance)",
    )
    parser.add_argument("--pure", action="store_true", help="without the compiled build: ours is pure Python")
    parser.add_argument(
        "--mixed",
        action=argparse.BooleanOptionalAction,
        help="also our client with Node's server, and the reverse (the default without --quick)",
    )
    parser.add_argument("--peers", action="store_true", help="also other RPC libraries for Python")
    parser.add_argument(
        "--endurance", action="store_true", help="instead: sessions that live long or hold much, and 10,000 idle ones"
    )
    parser.add_argument(
        "--remote",
        action="store_true",
        help="instead: remote bindings of a real workerd, through two proxies",
    )
    parser.add_argument(
        "--soak", type=float, metavar="MINUTES", help="instead: bindings in mixed use, and whether memory stays flat"
    )
    parser.add_argument("--backend", choices=("asyncio", "trio"), default="asyncio", help="our event loop")
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help=f"where the figures go, as JSON ({_LAST.name}; with --quick {_QUICK.name})",
    )
    parser.add_argument(
        "--plot",
        nargs="?",
        type=Path,
        const=_LAST,
        metavar="FILE",
        help=f"run nothing: draw {_PLOT.relative_to(_ROOT)} from saved figures ({_LAST.name}), and print tables",
    )
    parser.add_argument(
        "--profile",
        choices=[workload.name for workload in WORKLOADS],
        metavar="WORKLOAD",
        help="run nothing but this, on our side as pure Python, and show where the time goes",
    )
    arguments = parser.parse_args()
    if arguments.output is None:
        last, quick = _LAST, _QUICK
        if arguments.endurance:
            last, quick = _LAST_ENDURANCE, _QUICK_ENDURANCE
        elif arguments.remote:
            last, quick = _LAST_REMOTE, _QUICK_REMOTE
        arguments.output = quick if arguments.quick else last
    if arguments.mixed is None:
        arguments.mixed = not arguments.quick
    if not arguments.output.absolute().parent.is_dir():
        parser.error(f"--output {arguments.output}: there is no such folder")
    return arguments


def positive_number(text: str) -> int:
    """A command line's number of rounds."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("there is at least one round")
    return number


def _compare(arguments: argparse.Namespace) -> None:
    wanted = Wanted(
        backend=arguments.backend,
        pure=arguments.pure,
        quick=arguments.quick,
        mixed=arguments.mixed,
        peers=arguments.peers,
    )
    pairs = choose(wanted)
    where = machine()
    if where["load"] > _IDLE_LOAD:
        _tell(f"this machine is busy (load {where['load']}): figures drift, look at the ratios over several runs")
    rounds: int = arguments.rounds or (2 if arguments.quick else 5)
    results = results_of(run_rounds(pairs, rounds, not arguments.quick, _tell), pairs, rounds, where)
    print_table(figures_table(results))
    if results.mixed:
        print_table(mixed_table(results))
    save(results, arguments.output)
    _tell(f"all figures: {arguments.output}")


def _endure(arguments: argparse.Namespace) -> None:
    node, compiled = node_side(), compiled_folder(arguments.pure)
    sides = {PURE if compiled is None else COMPILED: our_side(arguments.backend, compiled), NODE: node}
    where, much = machine(), scale(arguments.quick, arguments.rounds)
    worn = {name: wear(side, name, much, _tell) for name, side in sides.items()}
    idle = {name: idle_sessions(side, name, much.sessions, _tell) for name, side in sides.items()}
    print_table(wear_table(worn))
    print_table(sessions_table(idle))
    save_endurance(arguments.output, worn, idle, where)
    _tell(f"all figures: {arguments.output}")


def _plot(path: Path) -> None:
    results = load(path)
    draw(results, _PLOT)
    _tell(f"drawn: {_PLOT}")
    for table in (ratios_table(results), figures_table(results), *([mixed_table(results)] if results.mixed else [])):
        print_markdown(table)


def _tell(text: str) -> None:
    print(text, file=sys.stderr)


def _terminated(_signal: int, _frame: object) -> NoReturn:
    """End as on an error, so that the children end first."""
    sys.exit(143)


def main() -> int:
    """Run the command line. Returns the exit status: 1 if a process failed, 2 if something is missing."""
    arguments = _arguments()
    signal.signal(signal.SIGTERM, _terminated)
    try:
        if arguments.backend == "trio":
            require("trio", "--backend trio")
        if arguments.profile is not None:
            profile(arguments.profile, arguments.backend, arguments.quick)
        elif arguments.plot is not None:
            _plot(arguments.plot)
        elif arguments.endurance:
            _endure(arguments)
        elif arguments.soak is not None:
            return 0 if soak(arguments.soak, _tell) else 1
        elif arguments.remote:
            rounds = arguments.rounds or (2 if arguments.quick else 5)
            compare_remote(rounds, arguments.quick, machine(), arguments.output, _tell)
        else:
            _compare(arguments)
    except Missing as error:
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
