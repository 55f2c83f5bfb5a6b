"""`tune-lr check`: validate a search space and show the plan, without a study."""

from argparse import Namespace

from tune_lr.cli.exit_codes import DONE
from tune_lr.cli.options import make_console, overrides_of, tell_waiting


def run(options: Namespace) -> int:
    """Print the plan of a search space; with `--address` also how it fits on that cluster."""
    from tune_lr.config.hardware import check_address, check_slots, slots_on
    from tune_lr.config.load import load_config
    from tune_lr.config.plan import plan
    from tune_lr.show.terminal.plan import show_fit, show_plan

    config = load_config(options.space, overrides_of(options))
    console = make_console()
    planned = plan(config)
    if options.address is None:
        show_plan(console, options.space, config, planned)
        return DONE
    check_address(options.address)
    from tune_lr.cluster import cluster

    scaling = config.scaling
    with cluster.connected(options.address, on_waiting=tell_waiting):
        nodes = cluster.nodes()
        free = cluster.free()
    slots = slots_on(nodes, scaling, scaling.max_concurrent)
    show_plan(console, options.space, config, planned, slots)
    show_fit(console, scaling, nodes, free, slots, planned)
    check_slots(nodes, scaling)
    return DONE
