"""A tiny GPT-2 that reads text byte by byte: a transformer trained on real data, without a tokenizer or a download."""

import fnmatch
import math
import os
import random
import sysconfig
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from tune_lr.errors import InputError
from tune_lr.workloads import SHARE_DATA, Batch, Outputs, Workload, node, raised

VOCABULARY = 256  # a token is a byte; 0 ends a file
# Of Python's own sources: packages that were installed beside them, tests (half of all bytes) and tables of characters.
_SKIPPED = {"site-packages", "dist-packages", "test", "tests", "encodings", "__pycache__"}


class Windows(Dataset[dict[str, Tensor]]):
    """Windows of a text, uint8 of shape (N, context), as {"input_ids", "labels"}, each int64 of shape (context,).

    GPT-2 itself shifts the labels by one.
    """

    def __init__(self, rows: Tensor) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        tokens = self._rows[index].long()
        return {"input_ids": tokens, "labels": tokens}


def gpt_bytes(
    root: str | None = None,
    pattern: str = "*",
    context: int = 64,
    layers: int = 2,
    heads: int = 2,
    width: int = 64,
    max_bytes: int = 2_000_000,
    val_windows: int = 250,
    batch_size: int = 16,
) -> Workload:
    """GPT-2 of `layers` blocks on the files below `root` whose names match `pattern`; by default on the sources of
    Python's own standard library.

    At most `max_bytes` are read, of the files in a fixed shuffled order, and cut into windows of `context` bytes. Of
    these `val_windows`, but at most a tenth, validate, as many test, and the others train. `root` must be seen by every
    node.
    """
    if min(context, layers, heads, width, max_bytes, val_windows) < 1 or width % heads:
        raise InputError(
            f"workload_args: sizes must be positive and width a multiple of heads (got width {width}, heads {heads})"
        )
    text = _read(_files(root, pattern), max_bytes)
    windows = len(text) // context
    if windows < 10:
        raise InputError(
            f"workload_args.root: too little text on node {node()}: {len(text)} bytes below {root!r}; at least "
            f"{10 * context} are needed, ten windows of {context} (context)"
        )
    rows = torch.frombuffer(text, dtype=torch.uint8)[: windows * context].view(windows, context)
    held_out = min(val_windows, windows // 10)
    order = torch.randperm(windows, generator=torch.Generator().manual_seed(0))
    parts = order.split([held_out, held_out, windows - 2 * held_out])
    val_data, test_data, train_data = (Windows(rows[part]) for part in parts)

    return Workload(
        model=partial(_gpt2, context, layers, heads, width),
        train_data=train_data,
        val_data=val_data,
        test_data=test_data,
        criterion=lambda outputs, _batch: outputs.loss,
        metrics={"bits_per_byte": bits_per_byte},
        batch_size=batch_size,
        param_groups=decay_matrices_only,
    )


def _gpt2(context: int, layers: int, heads: int, width: int) -> nn.Module:
    # Imported here, for its 5 s: a mistake in the arguments or the files shows sooner.
    import transformers

    library: Any = transformers  # it does not tell a type checker what it exports
    config = library.GPT2Config(
        vocab_size=VOCABULARY,
        n_positions=context,
        n_embd=width,
        n_layer=layers,
        n_head=heads,
        resid_pdrop=0.0,  # a study is far too short to overfit
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=0,
        eos_token_id=0,
        use_cache=False,
        tie_word_embeddings=False,  # so small a vocabulary costs next to nothing twice
    )
    gpt = library.GPT2LMHeadModel(config)
    gpt.loss_type = "ForCausalLM"  # which it takes by itself, after a warning
    return cast("nn.Module", gpt)


def bits_per_byte(outputs: Outputs, _batch: Batch) -> Tensor:
    """Return the loss in bits instead of nats: a scalar, in bits per byte."""
    bits: Tensor = outputs.loss / math.log(2)
    return bits


def decay_matrices_only(model: nn.Module) -> list[dict[str, Any]]:
    """The optimizer's weight decay holds for matrices; norms and biases have none."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return [
        {"params": [parameter for parameter in parameters if parameter.dim() > 1]},
        {"params": [parameter for parameter in parameters if parameter.dim() <= 1], "weight_decay": 0.0},
    ]


def _files(root: str | None, pattern: str) -> list[Path]:
    """In the order in which they are read, which is the same on every machine that holds the same files."""
    folder = Path(root or sysconfig.get_path("stdlib"))
    if not folder.is_dir():
        raise InputError(f"workload_args.root: no folder {str(folder)!r} on node {node()}; {SHARE_DATA}")
    found = []
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".") and (root or name not in _SKIPPED)]
        inside = Path(parent).relative_to(folder)
        found += [(inside / name).as_posix() for name in fnmatch.filter(names, pattern if root else "*.py")]
    found = sorted(name for name in found if not Path(name).name.startswith(".") and (folder / name).is_file())
    if not found:
        raise InputError(
            f"workload_args.root: no file below {str(folder)!r} matches {pattern!r} on node {node()}; {SHARE_DATA}"
        )
    random.Random(0).shuffle(found)
    return [folder / name for name in found]


def _read(files: list[Path], size: int) -> bytearray:
    """The files one after another, each ended by a 0, up to `size` bytes."""
    text = bytearray()
    for path in files:
        try:
            with path.open("rb") as file:
                text += file.read(size - len(text)) + b"\0"
        except OSError as error:
            raise InputError(f"workload_args.root: {str(path)!r} cannot be read: it {raised(error)}") from None
        if len(text) >= size:
            break
    return text[:size]
