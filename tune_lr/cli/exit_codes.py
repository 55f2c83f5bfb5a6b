"""The exit codes of `tune-lr`.

| code     | meaning                                                                     | comes from             |
|----------|-----------------------------------------------------------------------------|------------------------|
| 0        | done; where best.yaml has `claim: predicted`, with nothing trained in full  | `DONE`                 |
| 1        | an unexpected error, with a traceback                                       | Python                 |
| 2        | the input contradicts itself, or what the cluster declares                  | `errors.InputError`    |
| 3        | done, but some trials failed for good                                       | `SOME_FAILED`          |
| 4        | the cluster, the storage or the study on disk cannot serve what was asked   | `errors.ResourceError` |
| 5        | no answer: no trial completed, or the range test abstained under `--strict` | `errors.NoAnswerError` |
| 130, 143 | SIGINT or SIGTERM; `tune-lr resume` goes on with the study                  | `errors.Interrupted`   |
| 130      | SIGINT outside of a study                                                   | `INTERRUPTED`          |
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tune_lr.records.outcome import Outcome

DONE = 0
SOME_FAILED = 3
INTERRUPTED = 130


def exit_code_of(outcome: "Outcome") -> int:
    """Return the exit code of a study that has come to its end."""
    return SOME_FAILED if outcome.failed else DONE
