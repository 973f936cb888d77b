# SPDX-License-Identifier: Apache-2.0
"""The paper's tables in small, on Fashion-MNIST and photos: trains what has no result yet.

    .venv/bin/python tests/bench/paper_tables WORKDIR                    every cell, one after the other
    .venv/bin/python tests/bench/paper_tables WORKDIR --jobs 2           two at a time
    .venv/bin/python tests/bench/paper_tables WORKDIR --cell fkd-m4/1    this one again: its name / its seed
    .venv/bin/python tests/bench/paper_tables WORKDIR --cell 'hard-*'    all of such names that have no result
    .venv/bin/python tests/bench/paper_tables WORKDIR --speed            crops a second; leave the machine alone meanwhile
    .venv/bin/python tests/bench/paper_tables --list                     cells, their commands, which are done
    .venv/bin/python tests/bench/paper_tables --tables                   writes README.md's tables from the results

After tools/quickstart. Teachers, label sets and trainings lie in WORKDIR, results in results.json beside this file. Stop it whenever
you like: it goes on from the last checkpoint. Bits of weights repeat on one instruction set.
"""

import argparse
import fnmatch
import json
import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import cells  # noqa: E402
import tables  # noqa: E402
from runner import Results, Runner  # noqa: E402


def chosen(pattern):
    """The (cell, seed) pairs of a name or pattern, or of a name / a seed."""
    name, _, seed = pattern.partition("/")
    found = [(n, s) for n in cells.CELLS if fnmatch.fnmatchcase(n, name) for s in cells.CELLS[n].seeds if seed in ("", str(s))]
    if not found:
        sys.exit(f"paper_tables: no cell '{pattern}': expected a name of --list, or a name / a seed")
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workdir", type=pathlib.Path, nargs="?")
    parser.add_argument("--cell", action="append", default=[], help="name, name/seed or pattern; name/seed trains again what has a result")
    parser.add_argument("--jobs", type=int, default=1, help="trainings at once, each of one thread and one that loads batches")
    parser.add_argument("--speed", action="store_true", help="time the cells instead, or the tables that have those of --cell")
    parser.add_argument("--turns", type=int, default=5, help="of --speed")
    parser.add_argument("--seconds", type=float, default=30, help="that a turn of --speed takes, or longer")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--tables", action="store_true")
    parser.add_argument("--check", action="store_true", help="exit 1 if README.md has other tables")
    parser.add_argument("--results", type=pathlib.Path, default=HERE / "results.json")
    parser.add_argument("--bin", type=pathlib.Path, default=HERE.parents[2] / "build/release/bin")
    parser.add_argument("--tiny", action="store_true", help="a rehearsal in a minute: few images, small networks, one seed; all of it in WORKDIR/tiny")
    options = parser.parse_args()
    if options.list:
        results = Results(options.results)
        for name, cell in cells.CELLS.items():
            print(f"{name}: {sum(results.of(name, s) is not None for s in cell.seeds)} of {len(cell.seeds)} seeds\n    {cell.command(0)}")
        return
    if options.tables or options.check:
        sys.exit(tables.update(HERE / "README.md", Results(options.results), options.check))
    if options.workdir is None:
        parser.error("WORKDIR: where teachers, label sets and trainings go")
    patterns = {pattern: chosen(pattern) for pattern in options.cell or ["*"]}
    work = options.workdir / "tiny" if options.tiny else options.workdir  # never in one folder
    results = Results(work / "results.json" if options.tiny else options.results)
    runner = Runner(work, options.bin, results, options.tiny)
    if options.speed:
        try:
            named = {name for pairs in patterns.values() for name, _ in pairs}
            return runner.time([group for group in cells.TIMED if named & set(group)], options.turns, options.seconds)
        except RuntimeError as error:
            sys.exit(f"paper_tables: {error}")
    wanted = []
    for pattern, pairs in patterns.items():
        if "/" in pattern:
            for pair in pairs:
                runner.forget(*pair)
        wanted += [pair for pair in pairs if pair not in wanted]
    if options.tiny:
        wanted = [(name, seed) for name, seed in wanted if seed == 0]
    wanted = sorted((pair for pair in wanted if results.of(*pair) is None), key=lambda pair: pair[1])  # a seed of everything first
    return runner.train_all(wanted, options.jobs)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
