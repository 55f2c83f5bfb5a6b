"""Range-test curves that were measured elsewhere: which files are read, and which are refused."""

import math
from pathlib import Path

import pytest

from tune_lr.errors import InputError
from tune_lr.store.measured_curve import read_curve


@pytest.mark.parametrize(
    "text",
    [
        "step,lr,loss\n1,1e-5,2.3\n2,1e-4,nan\n",
        "lr,loss\n1e-5,2.3\n1e-4,nan\n",
        "\ufeffloss,step, lr \r\n2.3,1,0.00001\r\nNaN,2,0.0001\r\n",  # as a spreadsheet writes it
        "step,lr,loss,val_loss\n1,1e-5,2.3,\n\n2,1e-4,nan,2.1",
    ],
)
def test_a_curve_is_read_whatever_else_its_file_holds(text: str, tmp_path: Path) -> None:
    file = tmp_path / "curve.csv"
    file.write_bytes(text.encode())
    lrs, losses = read_curve(file)
    assert lrs == [1e-5, 1e-4]
    assert losses == pytest.approx([2.3, math.nan], nan_ok=True)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, ": cannot be read (No such file or directory); give a CSV file with the columns step, lr, loss"),
        (b"\x89PNG\r\n\x1a\n\xff\xfe", ": cannot be read (it is no CSV file)"),
        (b"", ":1 lr: no such column (got nothing); allowed are step, lr, loss"),
        (
            b"step,learning_rate,loss\n",
            ":1 lr: no such column (got step, learning_rate, loss); allowed are step, lr, loss",
        ),
        (
            b"step,lr,los\n",
            ":1 loss: no such column (got step, lr, los); did you mean 'los'?; allowed are step, lr, loss",
        ),
        (b"step,lr,loss\n", ": holds no steps; each line after the first is one step: step, lr, loss"),
        (b"step,lr,loss\n1,0.1,2\n2,x,2\n", ":3 lr: must be a number (got 'x'); a loss may be nan or inf"),
        (b"step,lr,loss\n1,0.1\n", ":2 loss: must be a number (got ''); a loss may be nan or inf"),
        (b"step,lr,loss\n1,0,2\n", ":2 lr: must be positive and finite (got 0)"),
        (b"step,lr,loss\n1,nan,2\n", ":2 lr: must be positive and finite (got nan)"),
        (
            b"step,lr,loss\n1,0.1,2\n2,0.2,2\n3,0.1,2\n",
            ":4 lr: must not fall from one step to the next (got 0.1 after 0.2); write each replicate into",
        ),
    ],
)
def test_a_file_that_holds_no_curve_is_refused_with_its_line(
    content: bytes | None, expected: str, tmp_path: Path
) -> None:
    file = tmp_path / "curve.csv"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_curve(file)
    assert str(caught.value).startswith(f"{file}{expected}")
    assert len(str(caught.value).splitlines()) == 1
