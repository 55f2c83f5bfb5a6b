"""An LR schedule as `tune-lr schedules` prints it."""

from rich.console import Console
from rich.markup import escape

from tune_lr.lr.schedule import make_lr_schedule
from tune_lr.lr.spec import ScheduleSpec
from tune_lr.show.terminal.words import SPARKS, plain_table

_WIDTH = 24  # characters of the curve
_STEPS_A_CHARACTER = 4


def show_schedule(console: Console, spec: ScheduleSpec) -> None:
    """Print an LR schedule's parameters, its curve with the defaults, and what it equals in PyTorch.

    The curve goes from 0 to the peak LR.
    """
    console.print(f"[bold]{spec.name}[/]  {spec.doc}", highlight=False)
    lrs = make_lr_schedule(spec.name, {}, _WIDTH * _STEPS_A_CHARACTER).lrs(1.0)[::_STEPS_A_CHARACTER]
    console.print(f"  {''.join(SPARKS[round(lr * (len(SPARKS) - 1))] for lr in lrs.tolist())}", highlight=False)
    table = plain_table(left_padding=2)
    for heading in ("parameter", "default", "allowed", ""):
        table.add_column(heading)
    for parameter in spec.parameters:
        table.add_row(parameter.name, parameter.default_text(), escape(parameter.range()), parameter.doc)
    console.print(table, highlight=False)
    classes = ", then ".join(spec.torch_classes)
    console.print(f"    in torch.optim.lr_scheduler: {classes}\n", highlight=False, style="dim")
