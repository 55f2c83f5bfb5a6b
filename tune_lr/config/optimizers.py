"""The names of optimizers that a search space may give, and what has to be known of each without torch."""

# ColossalAI's, by the names of their classes. Its Adafactor is not among them: torch's has the name, and ColossalAI's
# drops the LR that it is given.
COLOSSALAI = ("CAME", "GaLoreAdafactor", "GaLoreAdamW", "Lamb", "Lars")
# ColossalAI's that need kernels which it builds where there is CUDA, and what to take instead. Each of them raised on a
# CPU when it was tried with colossalai 0.5.0, CPUAdam too.
CUDA_ONLY = {"CPUAdam": "adamw", "FusedAdam": "adamw", "FusedLAMB": "lamb", "FusedSGD": "sgd", "HybridAdam": "adamw"}
_SHARDED = "takes the shards of ColossalAI's tensor parallelism, which sets it up by itself"
# Those that cannot serve here, and why.
REFUSED = {
    "LBFGS": "evaluates the loss several times a step, and here a step evaluates it once",
    "SparseAdam": "takes sparse gradients only",
    "Rprop": "reads the LR at its first step only, so that all LR schedules would be the same",
    "GaLoreAdamW8bit": "passes bitsandbytes an argument that it no longer has",
    "DistGaloreAwamW": _SHARDED,
    "DistributedAdaFactor": _SHARDED,
    "DistributedCAME": _SHARDED,
    "DistributedLamb": _SHARDED,
}
# Those that an LR range test does not suit, and why.
_UNSUITED_TO_RAMPS = {
    "adagrad": "Adagrad's own LR falls with every step, so that a ramp of few steps says too little about a full run",
    "adafactor": "Adafactor holds its LR below 1/sqrt(step), so that a ramp may never reach the LR that diverges",
}


def range_test_caveat(name: str) -> str | None:
    """Return in one sentence why an LR range test says little with the optimizer of that name; None where it suits."""
    why = _UNSUITED_TO_RAMPS.get(name.lower())
    return f"{why}; distrust its bounds, or give parameters.lr numbers" if why else None


def colossalai_class(name: str) -> str | None:
    """Return the class of ColossalAI that a name means, or None.

    This is the name under which ColossalAI exports the class. The class may call itself otherwise: GaLoreAdamW's own
    name is AdamW.
    """
    return next((key for key in (*COLOSSALAI, *CUDA_ONLY) if key.lower() == name.lower()), None)
