"""Optuna's sampler for a search with trials of several lengths. What it proposes is decided by `ladder.Ladder`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.trial import FrozenTrial


@dataclass(frozen=True)
class Proposed:
    """The parameters of the next trial under Optuna's names, and the distributions that they belong to."""

    values: Mapping[str, Any]
    distributions: Mapping[str, BaseDistribution]


Propose = Callable[[], Proposed]


class LengthSampler(BaseSampler):
    """Hands Optuna what `propose` returns. The same trials and the same seed give the same proposal."""

    def __init__(self, propose: Propose, seed: int) -> None:
        self._propose = propose
        self._proposed = Proposed({}, {})
        self._random = RandomSampler(seed=seed)

    # Optuna's interface has arguments that are not needed here.
    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return the distributions of what is proposed: which parameters there are depends on the schedule."""
        # A trial that goes on after an interruption has all its values already.
        self._proposed = Proposed({}, {}) if "spec" in trial.user_attrs else self._propose()
        return dict(self._proposed.distributions)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return what is proposed."""
        return dict(self._proposed.values)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Return a random value, where a trial asks for a parameter that was not proposed."""
        return self._random.sample_independent(study, trial, param_name, param_distribution)
