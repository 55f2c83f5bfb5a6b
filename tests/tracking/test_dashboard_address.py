"""The address of a workspace whose random name ends in what wandb-workspaces takes out."""

from types import SimpleNamespace

import pytest

from tune_lr.tracking.dashboard import _address


@pytest.mark.parametrize(
    ("view", "name"),
    [
        ("nw-gqsrhynuknw-v", "gqsrhynuknw"),  # was printed as gqsrhynukv
        ("nw-nw-v", "nw"),
        ("nw-abcdefghijk-v", "abcdefghijk"),
        ("abc", "abc"),
    ],
)
def test_only_the_ends_of_a_views_name_are_left_out(view: str, name: str) -> None:
    workspace = SimpleNamespace(_internal_name=view, url="https://host/us/mine?nw=wrong")
    assert _address(workspace) == f"https://host/us/mine?nw={name}"
