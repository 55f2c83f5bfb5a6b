"""What study.yaml holds: the study's resolved configuration, and where it was made and with which versions."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tune_lr.lr.training_length import REFERENCE_STEPS

if TYPE_CHECKING:
    from tune_lr.config.model import Config

FORMAT_VERSION = 1
# What a study needs to go on, in the order of the file: where the last field is there, the configuration is whole.
FIELDS = {
    "name": str,
    "id": str,
    "python_path": list,
    "phases": list,
    "config": dict,
    "packages": dict,
    "hardware": dict,
}


@dataclass(frozen=True)
class StudyRecord:
    """A study as study.yaml describes it. It holds no secrets."""

    name: str
    id: str  # the ids of its W&B runs begin with it
    created: str  # ISO 8601, with the time zone
    python_path: tuple[str, ...]  # where the user's Python files lie
    phases: tuple[str, ...]
    config: "Config"
    packages: Mapping[str, str]  # versions
    hardware: Mapping[str, Any]  # of the host on which the study was made
    code: Mapping[str, str] = field(default_factory=dict)  # digests of the user's files; empty in old studies

    def to_dict(self) -> dict[str, Any]:
        """Return the record as study.yaml holds it."""
        return {
            "name": self.name,
            "id": self.id,
            "created": self.created,
            "python_path": list(self.python_path),
            "code": dict(self.code),
            "phases": list(self.phases),
            "config": self.config.to_dict(),
            "packages": dict(self.packages),
            "hardware": dict(self.hardware),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], source: str) -> "StudyRecord":
        """Return the inverse of `to_dict`. Raises InputError where the configuration is wrong, with `source` named."""
        from tune_lr.config.load import parse_config  # here: workers, which import the store, have no use for pydantic

        return cls(
            name=data["name"],
            id=data["id"],
            created=str(data.get("created", "")),
            python_path=tuple(data["python_path"]),
            phases=tuple(data["phases"]),
            config=parse_config(_with_reference_bounds(data["config"]), source=source),
            packages=data["packages"],
            hardware=data["hardware"],
            code=data.get("code") or {},
        )


def _with_reference_bounds(config: dict[str, Any]) -> dict[str, Any]:
    """Return a recorded configuration, with the bounds of studies that were made before they depended on the length."""
    ramp = config.get("range_test")
    if not isinstance(ramp, dict) or "training_steps" in ramp:
        return config
    return {**config, "range_test": {**ramp, "training_steps": REFERENCE_STEPS}}
