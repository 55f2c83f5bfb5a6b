"""What do short trainings say about long ones? Searches for the answer at full length, replayed on recorded landscapes.

    python benchmarks/long_runs.py [--judges] [--repetitions 10] [--only NAME ...] [--llama FILE]

The landscapes of `longrun/` hold nine LR schedules at four lengths, x1 to x64. A search proposes complete trainings of
any length; at the end it names an LR for every schedule, and a schedule, for the full length. Costs are counted in full
trainings, the LR range test included. Every training shows one seed; answers are judged by the mean over all seeds.

- **regret**: the loss of the schedule and LR that are named, above the lowest of the landscape at full length;
- **LR**: for every schedule the loss at the LR that is named, above that schedule's own lowest;
- **hold**: of the 80 % intervals how many hold the schedule's best LR, or the mean loss at the LR that is named. The
  best LR is the bottom of a parabola through noisy means; where the valley is flat it is not well known either.

The workloads in view were used to choose the method and its constants. The judges were not looked at before.
"""

import argparse
import math
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import llama124m
from long_rivals import FULL, RIVALS, World, best_of_the_shortest, straight_lines
from longrun.landscape import IN_VIEW, JUDGES, LENGTHS, names
from tune_lr.lr.bounds import find_lr_bounds
from tune_lr.study.length_model import Forecast, Observation, fit, forecast, propose

Points = list[tuple[float, float]]  # trainings spent so far, and the regret of what is named then

SHORT = tuple(length / FULL for length in LENGTHS[:-1])
BUDGETS = {"tune-lr, 1.5 trainings": (1.5, SHORT), "tune-lr, 3 trainings": (3.0, (*SHORT, 1.0))}
HEADER = "| search | regret, median | worst | LR, median | worst | LRs held | losses held |\n" + "|---" * 7 + "|"
HORIZON = 48  # full trainings that a rival is followed for
LLAMA = Path(__file__).parents[2] / "shared" / "longrun" / "llama124m.csv"


@dataclass(frozen=True)
class Result:
    """Of one search: its regret; for each schedule what its LR costs, and whether the intervals hold the truth."""

    spent: float
    regret: float
    lr_costs: tuple[float, ...]
    lr_held: tuple[bool, ...] = ()
    loss_held: tuple[bool, ...] = ()


def ours(world: World, repetition: int, budget: float, lengths: Sequence[float]) -> Result:
    """Range test, then trainings as they are proposed while the budget lasts, then the answer."""
    bounds, spent = world.range_test(repetition)
    prior, schedules = world.prior(bounds), list(world.schedules.values())
    trained: list[Observation] = []
    while affordable := [length for length in lengths if spent + length <= budget]:
        proposal = propose(fit(trained, prior, world.steps, repetition), schedules, affordable)
        seed, length = repetition % world.landscape.seeds, round(proposal.length * FULL)
        trained.append(world.train(proposal.schedule.name, length, proposal.lr, seed))
        spent += proposal.length
    return judged(world, forecast(fit(trained, prior, world.steps, repetition), schedules), spent)


def judged(world: World, found: Forecast, spent: float) -> Result:
    """Compare an answer with the landscape."""
    first, costs, lr_held, loss_held = found.schedules[0], [], [], []
    for one in found.schedules:
        named = one.schedule.name, one.lr
        costs.append(world.cost_of_lr(named))
        best_lr, loss = world.landscape.best(named[0], FULL).lr, world.landscape.mean(named[0], FULL, named[1])
        lr_held.append(one.lr_interval[0] <= best_lr <= one.lr_interval[1])
        loss_held.append(one.loss_interval[0] <= loss <= one.loss_interval[1])
    regret = world.regret((first.schedule.name, first.lr))
    return Result(spent, regret, tuple(costs), tuple(lr_held), tuple(loss_held))


def rival_trace(world: World, rival: str, repetition: int) -> Points:
    """Return the trainings spent so far and the regret of what is named, up to the horizon."""
    trace: Points = []
    for spent, named in RIVALS[rival](world, repetition):
        if spent > HORIZON:
            break
        trace.append((spent, world.regret(named)))
    return trace


def regret_after(trace: Points, budget: float) -> float:
    """Return the regret at a budget; where nothing has ended by then, that of the first that ends."""
    within = [regret for spent, regret in trace if spent <= budget + 0.25]
    return within[-1] if within else trace[0][1]


def trainings_to(trace: Points, regret: float) -> float:
    """Return after how many trainings a search names what is as good for the first time, and keeps to it."""
    last = max((i for i, (_, value) in enumerate(trace) if value > regret), default=-1)
    return trace[last + 1][0] if last + 1 < len(trace) else math.inf


def knowing(world: World) -> dict[str, Result]:
    """Return what one would name who knew whole lengths of the landscape."""
    lrs, schedule = straight_lines(world)
    shortest = best_of_the_shortest(world)
    best_there = world.landscape.lowest(LENGTHS[0])[0]

    def result(chosen: dict[str, float], first: str) -> Result:
        costs = tuple(world.cost_of_lr(named) for named in chosen.items())
        return Result(math.nan, world.regret((first, chosen[first])), costs)

    return {
        "best of the shortest length, as it is": result(shortest, best_there),
        "ceiling: all up to a quarter, straight lines": result(lrs, schedule),
    }


@dataclass(frozen=True)
class Suggested:
    """What the range test alone says of one schedule at one length, against the landscape.

    `cost` is by how much the suggested peak is worse than the schedule's best; `held`, whether the bounds hold an LR
    within 2 % of it; `decades`, how wide they are.
    """

    cost: float
    held: bool
    decades: float


def by_the_range_test(world: World, repetition: int, knows_length: bool) -> Iterator[Suggested]:
    """Yield what the range test alone says, for every schedule and length; with or without the training's length."""
    curves = world.ramp_curves(repetition)
    for length in LENGTHS:
        bounds = find_lr_bounds(curves, world.landscape.steps[length] if knows_length else None)
        for name, schedule in world.schedules.items():
            peak = bounds.suggestion_for(float(np.mean(schedule.curve)))
            if peak is None or bounds.low is None or bounds.high is None:
                yield Suggested(math.nan, False, math.inf)
                continue
            best = world.landscape.best(name, length).loss
            inside = [world.landscape.mean(name, length, lr) for lr in np.geomspace(bounds.low, bounds.high, 25)]
            cost = max(world.landscape.mean(name, length, peak) / best - 1, 0.0)
            yield Suggested(cost, min(inside) <= 1.02 * best, math.log10(bounds.high / bounds.low))


def print_range_test(suggested: Mapping[str, Sequence[Suggested]]) -> None:
    """Print a table of what the range test alone says, over all workloads, lengths and schedules."""
    print("\nThe range test alone, for every schedule at x1 to x64\n")
    print("| bounds are | suggestion, median | 90 of 100 | worst | no suggestion | bounds hold | decades, median |")
    print("|" + "---|" * 7)
    for title, found in suggested.items():
        costs = np.array([each.cost for each in found])
        cells = [percent(value) for value in (*np.nanquantile(costs, [0.5, 0.9]), np.nanmax(costs))]
        cells += [percent(float(np.isnan(costs).mean())), percent(float(np.mean([each.held for each in found])))]
        cells += [f"{np.median([each.decades for each in found]):.2f}"]
        print(f"| {title} | {' | '.join(cells)} |")


def percent(value: float) -> str:
    """Return a fraction as percent."""
    return f"{100 * value:.1f} %" if math.isfinite(value) else "-"


def row(title: str, regrets: Sequence[float], costs: Sequence[float], rest: Sequence[str] = ()) -> str:
    """Return a row of a table: medians and worst."""
    cells = [percent(float(np.median(regrets))), percent(max(regrets))]
    cells += [percent(float(np.median(costs))), percent(max(costs))] if costs else ["-", "-"]
    return f"| {title} | {' | '.join([*cells, *(rest or ('-', '-'))])} |"


def held(results: Sequence[Result]) -> list[str]:
    """Return how many of 100 intervals hold the truth: of LRs and of losses."""
    return [
        f"{100 * np.mean([one for result in results for one in getattr(result, name)]):.0f}"
        for name in ("lr_held", "loss_held")
    ]


def compare(workloads: Sequence[str], repetitions: int) -> None:
    """Print the tables: of each workload, and of all together."""
    found: dict[str, list[list[Result]]] = {title: [] for title in BUDGETS}
    traces: dict[str, list[list[Points]]] = {rival: [] for rival in RIVALS}
    knows: dict[str, list[Result]] = {}
    suggested: dict[str, list[Suggested]] = {"for short trainings": [], "for each length": []}
    for name in workloads:
        world = World.load(name)
        print(f"\n{name}, {world.steps} steps\n\n{HEADER}")
        for title, (budget, lengths) in BUDGETS.items():
            found[title].append([ours(world, repetition, budget, lengths) for repetition in range(repetitions)])
            print(our_row(title, found[title][-1]), flush=True)
        for rival in RIVALS:
            traces[rival].append([rival_trace(world, rival, repetition) for repetition in range(repetitions)])
            print(row(f"{rival}, 3 trainings", [regret_after(trace, 3.0) for trace in traces[rival][-1]], []))
        for title, result in knowing(world).items():
            knows.setdefault(title, []).append(result)
            print(row(title, [result.regret], result.lr_costs))
        for (_, entries), knows_length in zip(suggested.items(), (False, True), strict=True):
            for repetition in range(repetitions):
                entries.extend(by_the_range_test(world, repetition, knows_length))
    print(f"\nAll {len(workloads)} workloads\n\n{HEADER}")
    for title, results_by_workload in found.items():
        print(our_row(title, [result for results in results_by_workload for result in results]))
    for budget in (1.5, 3.0):
        for rival, traces_by_workload in traces.items():
            regrets = [regret_after(trace, budget) for one in traces_by_workload for trace in one]
            print(row(f"{rival}, {budget:g} trainings", regrets, []))
    for title, results in knows.items():
        costs = [cost for result in results for cost in result.lr_costs]
        print(row(title, [result.regret for result in results], costs))
    needed_by_rivals(found, traces)
    print_range_test(suggested)


def needed_by_rivals(found: Mapping[str, list[list[Result]]], traces: Mapping[str, list[list[Points]]]) -> None:
    """Print how many full trainings each rival needs to be as good as ours; the median over workloads and
    repetitions."""
    print("\nFull trainings until a rival's regret is for good no more than ours in the median of that workload.\n")
    print(f"| rival | {' | '.join(BUDGETS)} |\n|{'---|' * (1 + len(BUDGETS))}")
    for rival, traces_by_workload in traces.items():
        cells = []
        for results_by_workload in found.values():
            needed = [
                trainings_to(trace, float(np.median([result.regret for result in results])))
                for results, one in zip(results_by_workload, traces_by_workload, strict=True)
                for trace in one
            ]
            middle = float(np.median(needed))
            cells.append(f"{middle:.1f}" if math.isfinite(middle) else f"> {HORIZON}")
        print(f"| {rival} | {' | '.join(cells)} |")


def our_row(title: str, results: Sequence[Result]) -> str:
    """Return the row of one of our searches."""
    costs = [cost for result in results for cost in result.lr_costs]
    return row(title, [result.regret for result in results], costs, held(results))


def main() -> None:
    """Read the command line and print the tables."""
    parser = argparse.ArgumentParser(description="Replays searches with trainings of any length.")
    parser.add_argument("--judges", action="store_true", help="the workloads that were kept for judging")
    parser.add_argument("--repetitions", type=int, default=10)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these workloads")
    parser.add_argument("--llama", type=Path, default=LLAMA, metavar="FILE", help="the 124M model's trainings")
    options = parser.parse_args()
    os.nice(10)
    workloads = options.only or names(JUDGES if options.judges else IN_VIEW)
    if not workloads:
        sys.exit("error: no workload is recorded at every length")
    compare(workloads, options.repetitions)
    llama124m.report(options.llama)


if __name__ == "__main__":
    main()
