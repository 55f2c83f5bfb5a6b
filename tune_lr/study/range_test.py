"""The LR range test of a study: a few ramps for each combination of batch size and optimizer, and their bounds."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from tune_lr.config.model import Config
from tune_lr.config.parameters import Combination
from tune_lr.config.plan import needs_range_test
from tune_lr.errors import NoAnswerError, ResourceError
from tune_lr.lr.bounds import LRBounds, find_lr_bounds
from tune_lr.lr.ramp import Ramp
from tune_lr.records.observer import Observer
from tune_lr.records.row import TrialRow
from tune_lr.records.trial import TrialSpec
from tune_lr.store.curves import RANGE_CURVE_COLUMNS, read_curve
from tune_lr.store.files import write_json
from tune_lr.store.study_dir import StudyDir
from tune_lr.study.journal import Journal
from tune_lr.study.trial_book import TrialBook

# Where ramps diverged and hold no bounds, the search covers at least this factor below the lowest LR that diverged.
BELOW_DIVERGENCE = 100.0
RAMP_SEED = 1  # the first ramp's seed, counted from the study's; no confirmation has one of these


class RangeTest:
    """Says which ramps are run and reads the bounds off them.

    Where the ramps of a combination hold no answer, they run once more over a wider range. That range is written into
    the journal, so that a resumed study runs the same ramps.
    """

    def __init__(
        self,
        config: Config,
        directory: StudyDir,
        journal: Journal,
        trials: TrialBook,
        observer: Observer,
        phases: Sequence[str],
    ) -> None:
        self._config = config
        self._directory = directory
        self._journal = journal
        self._trials = trials
        self._observer = observer
        self._phases = tuple(phases)
        self.bounds: dict[Combination, LRBounds] = {}  # empty until all ramps have ended and were read

    @property
    def own_bounds(self) -> LRBounds | None:
        """The bounds of the study's own batch size and optimizer; None where they are not known (yet)."""
        return self.bounds.get(self._config.combinations[0])

    def ramps(self) -> list[tuple[Combination, Ramp]]:
        """Return the configuration's ramp for each combination, then the wider ramps of those without an answer."""
        settings = self._config.range_test
        if not needs_range_test(self._config, self._phases):
            return []
        first = Ramp(settings.low, settings.high, settings.steps, settings.mode, settings.stairs)
        combinations = self._config.combinations
        wider = self._journal.ledger("range_test").user_attrs
        again = [
            (combination, Ramp(**wider[_attribute(combination)]))
            for combination in combinations
            if _attribute(combination) in wider
        ]
        return [*((combination, first) for combination in combinations), *again]

    def remaining(self) -> int:
        """Return how many ramps are still to be asked for."""
        return self._config.range_test.replicates * len(self.ramps()) - self._trials.asked("range_test")

    def spec(self, number: int) -> TrialSpec:
        """Return the next ramp as the trial of that number."""
        index = self._trials.asked("range_test")
        combination, ramp = self.ramps()[index // self._config.range_test.replicates]
        return TrialSpec(
            number,
            "range_test",
            self._config.seed + RAMP_SEED + index,
            ramp.steps,
            ramp=ramp,
            batch_size=combination.batch_size,
            optimizer=_ramp_optimizer(self._config, combination.optimizer),
        )

    def read_bounds(self) -> dict[Combination, LRBounds]:
        """Read each combination's bounds off its last round of ramps and write bounds.json.

        Where that round alone holds no answer, all rounds are read together. A combination whose ramps all failed has
        no bounds. Raises ResourceError where the curve of a ramp is damaged.
        """
        self.bounds = {}
        entries = []
        ramps = self.ramps()
        for combination in dict(ramps):
            rounds = [self._complete_rows(combination, ramp) for own, ramp in ramps if own == combination]
            rows = rounds[-1]
            if not rows:
                continue
            bounds = self._read(combination, rows)
            if bounds.status != "ok" and len(rounds) > 1:
                every_row = [row for rows_of_round in rounds for row in rows_of_round]
                together = self._read(combination, every_row)
                if together.status == "ok":
                    bounds, rows = together, every_row
                else:
                    bounds = replace(bounds, divergence_lrs=together.divergence_lrs)
            self.bounds[combination] = bounds
            entries.append(self._entry(combination, bounds, rows))
        if self.own_bounds is not None:
            others = {"combinations": entries} if len(self._config.combinations) > 1 else {}
            write_json(self._directory.bounds_json, {**self.own_bounds.to_dict(), **others})
        return self.bounds

    def _read(self, combination: Combination, ramps: Sequence[TrialRow]) -> LRBounds:
        curves = [self._curve(row) for row in ramps]
        return find_lr_bounds([(curve["lr"], curve["loss"]) for curve in curves], self._training_steps(combination))

    def _training_steps(self, combination: Combination) -> int | None:
        """Return the length of the trainings that the bounds of a combination are for."""
        steps = self._config.range_test.training_steps
        return None if steps is None else self._config.steps_of(steps, combination.batch_size)

    def conclude(self, strict: bool) -> bool:
        """Read the bounds off the finished ramps; return False where wider ramps have to run first.

        Raises NoAnswerError where no ramp of some combination could be run and, with `strict`, where a combination has
        no bounds.
        """
        ramps = self.ramps()
        if self.bounds or not ramps:
            return True
        found = self.read_bounds()
        rounds = Counter(combination for combination, _ in ramps)
        if len(found) < len(rounds):
            reasons = {row.reason for row in self._trials.rows_of("range_test") if row.state == "failed"}
            raise NoAnswerError(f"the LR range test could not be run: {'; '.join(sorted(reasons))}")
        widened = False
        for combination, bounds in found.items():
            if bounds.status != "ok" and rounds[combination] == 1:
                self._widen(combination, ramps[0][1], bounds)
                widened = True
        if widened:
            self.bounds = {}
            return False
        self._announce(found, strict)
        abstained = [combination for combination, bounds in found.items() if bounds.status != "ok"]
        if abstained and strict:
            bounds = found[abstained[-1]]
            name = _name_of(abstained[-1])
            raise NoAnswerError(f"the LR {name} abstained ({bounds.status}): {bounds.reason}")
        return True

    def search_bounds(self, combination: Combination) -> tuple[float, float]:
        """Return the range in which the search looks for the LR: the bounds, else all that the ramps cover.

        Where ramps without bounds diverged, the range ends at the lowest LR that diverged, and begins at least a factor
        of BELOW_DIVERGENCE below it.
        """
        bounds = self.bounds.get(combination)
        if bounds is not None and bounds.low is not None and bounds.high is not None:
            return bounds.low, bounds.high
        low, high = self._config.range_test.low, self._config.range_test.high
        diverged = [lr for lr in (bounds.divergence_lrs if bounds else ()) if lr < high]
        return (min(low, min(diverged) / BELOW_DIVERGENCE), min(diverged)) if diverged else (low, high)

    def _complete_rows(self, combination: Combination, ramp: Ramp) -> list[TrialRow]:
        """Return the complete ramps of one round."""
        specs = [spec for spec in self._trials.specs("range_test") if spec.ramp == ramp]
        numbers = {spec.number for spec in specs if _combination_of(spec) == combination}
        rows = self._trials.rows_of("range_test")
        return [row for row in rows if row.number in numbers and row.state == "complete"]

    def _curve(self, row: TrialRow) -> dict[str, list[float]]:
        path = self._directory.range_curve(row.number)
        curve = read_curve(path)
        points = len(curve["lr"]) if curve.keys() == set(RANGE_CURVE_COLUMNS) else 0
        if points != row.steps:
            raise ResourceError(f"{path}: has {points} of {row.steps} points; put the whole file back")
        return curve

    def _entry(self, combination: Combination, bounds: LRBounds, ramps: Sequence[TrialRow]) -> dict[str, Any]:
        """Return what bounds.json says of one combination."""
        return {
            "batch_size": combination.batch_size or self._config.batch_size,
            "optimizer": combination.optimizer or self._config.optimizer.name,
            **bounds.to_dict(),
            "ramps": [row.number for row in ramps],
        }

    def _widen(self, combination: Combination, ramp: Ramp, bounds: LRBounds) -> None:
        wider = extended_ramp(ramp, bounds)
        self._journal.ledger("range_test").set_user_attr(_attribute(combination), asdict(wider))
        where = f"from {wider.low:g} to {wider.high:g}, {wider.steps} steps a ramp"
        reason = bounds.reason.rstrip(".")
        self._observer.notice(f"{_name_of(combination)}: {reason}. It runs again {where}.")

    def _announce(self, found: Mapping[Combination, LRBounds], strict: bool) -> None:
        for combination, bounds in found.items():
            self._observer.bounds_found(bounds, str(combination))
            if bounds.status != "ok" and not strict and "search" in self._phases:
                low, high = self.search_bounds(combination)
                name = _name_of(combination)
                text = f"{name}: NO BOUNDS ({bounds.status}). The search covers {low:g} to {high:g}"
                text += "; the LRs above it diverged." if high < self._config.range_test.high else "."
                self._observer.notice(text)


def extended_ramp(ramp: Ramp, bounds: LRBounds) -> Ramp:
    """Return where to look when ramps held no answer, with as many steps a decade.

    That is higher where nothing diverged, lower where the ramps began by diverging, and else wider at both ends.
    """
    if bounds.status == "no_divergence":
        return ramp.over(ramp.low, ramp.high * 100)
    if bounds.status == "diverged_at_start":
        return ramp.over(ramp.low / 1e4, ramp.low * 10)
    return ramp.over(ramp.low / 10, ramp.high * 10)


def _combination_of(spec: TrialSpec) -> Combination:
    return Combination(spec.batch_size, spec.optimizer.get("name", ""))


def _attribute(combination: Combination) -> str:
    """Return the name under which the journal keeps the wider ramp of a combination."""
    return f"extended {combination}".strip()


def _name_of(combination: Combination) -> str:
    return f"range test of {combination}" if str(combination) else "range test"


def _ramp_optimizer(config: Config, name: str) -> dict[str, Any]:
    """Return what the ramps of an optimizer take of its arguments that are searched.

    An argument has the value that the field `optimizer` gives it, and else the middle of its range. Nothing is returned
    where no other optimizer is searched (`name` is "").
    """
    if not name:
        return {}
    given = config.optimizer.args if name.lower() == config.optimizer.name.lower() else {}
    searched = config.parameters.optimizer[name]
    return {"name": name} | {key: space.middle() for key, space in searched.items() if key not in given}
