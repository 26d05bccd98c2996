"""`Recipe`: what decides a training run beside its spec, its task and the model that it begins with, and what may not be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..diagnostics import InputError
from ..machine import card_memory, memory_here
from .schedules import Schedule

AUTOCASTS = ("auto", "bfloat16", "off")
DTYPES = ("float32", "float64")
MOST_SEED = 2**31 - 1  # torch's generators take 32 bits of a seed, and those above are for what is never trained on
BYTES_PER_WEIGHT = 4  # float32
BYTES_PER_PARAMETER = 16  # itself, its gradient, and two moments of the optimiser


@dataclass(frozen=True, slots=True)
class Recipe:
    """The sizes of the model, of a step, and of the run. Checked by `check_recipe`."""

    dim: int = 128
    depth: int = 3
    heads: int = 4
    key_heads: int | None = None
    feed_forward: str = "gelu"
    positions: str = "learned"
    tied: bool = False
    own_weights: tuple[str, ...] = ()  # roles with weights of their own
    words: int = 64  # data tokens in a sequence
    batch: int = 8  # sequences in a step: over all its parts, and all processes
    accumulate: int = 1  # parts that a batch goes through the model in, one after another
    steps: int = 1300
    learning_rate: float = 3e-3
    warm_up: int = 40  # steps, of which a tenth of the run is the most
    weight_decay: float = 0.01
    clip: float = 1.0  # the most that the gradient's norm may be
    schedules: tuple[Schedule, ...] = ()  # params that change from step to step
    seed: int = 0
    held_out: float = 0.1  # share of the data, at its end, that is never trained on
    validate_every: int | None = None  # steps; None: at the end alone
    save_every: int = 100  # steps
    max_seconds: float | None = None  # stop early, with what was learnt so far
    device: str = "auto"  # a GPU if there is one
    dtype: str = "float32"  # of the weights and the optimiser
    autocast: str = "auto"  # "auto": bfloat16 on GPUs
    compile: bool = False  # the blocks go through torch.compile

    @property
    def sizes(self) -> dict[str, Any]:
        """The arguments of `build_model`, but for the vocabulary."""
        names = ("dim", "depth", "heads", "key_heads", "feed_forward", "positions", "tied", "own_weights")
        return {**{name: getattr(self, name) for name in names}, "max_positions": max(2048, self.words)}


def check_recipe(recipe: Recipe, shares: int = 1, weight_shares: int = 1, here: int = 1) -> None:
    """Raises InputError naming the number that does not fit, what was wanted, and what came. A batch is divided into `shares`, and what trains of the
    weights into `weight_shares`, each for a process; `here` are the processes on this machine."""
    wholes = ("words", "batch", "accumulate", "steps", "save_every", "dim", "depth", "heads", "warm_up", "seed", "key_heads", "validate_every")
    least = {"words": 2, "warm_up": 0, "seed": 0}
    for name in wholes:
        value, optional = getattr(recipe, name), name in ("key_heads", "validate_every")
        if optional and value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int) or value < least.get(name, 1):
            raise InputError(f"{name} is a whole number, {least.get(name, 1)} or more; got {value!r}")
    if recipe.seed > MOST_SEED:
        raise InputError(f"a seed is from 0 to {MOST_SEED}; got {recipe.seed}")
    for name, low, high in (("learning_rate", 0, 1), ("clip", 0, float("inf")), ("held_out", 0, 0.9)):
        if not _is_number(getattr(recipe, name)) or not low < getattr(recipe, name) <= high:
            raise InputError(f"{name.replace('_', ' ')} is more than {low} and at most {high}; got {getattr(recipe, name)!r}")
    if not _is_number(recipe.weight_decay) or not 0 <= recipe.weight_decay < 1:
        raise InputError(f"weight decay is from 0, and less than 1; got {recipe.weight_decay!r}")
    if recipe.max_seconds is not None and not (_is_number(recipe.max_seconds) and recipe.max_seconds > 0):
        raise InputError(f"max_seconds is more than 0; got {recipe.max_seconds!r}")
    for name, known in (("autocast", AUTOCASTS), ("dtype", DTYPES)):
        if getattr(recipe, name) not in known:
            raise InputError(f"{name} is {' or '.join(map(repr, known))}; got {getattr(recipe, name)!r}")
    if not isinstance(recipe.own_weights, tuple) or not all(isinstance(role, str) for role in recipe.own_weights):
        raise InputError(f'own_weights is a tuple of roles, such as ("reason",); got {recipe.own_weights!r}')
    if not isinstance(recipe.schedules, tuple) or not all(isinstance(each, Schedule) for each in recipe.schedules):
        raise InputError(f'schedules is a tuple of Schedule, such as (read_schedule("horizon=0@0,16@1000"),); got {recipe.schedules!r}')
    for name in ("compile", "tied"):
        if not isinstance(getattr(recipe, name), bool):
            raise InputError(f"{name} is true or false; got {getattr(recipe, name)!r}")
    if recipe.batch % (recipe.accumulate * shares):
        shared = f" on {shares} processes" if shares > 1 else ""
        raise InputError(
            f"a batch of {recipe.batch} sequences cannot be passed in {recipe.accumulate} equal parts{shared}: "
            f"give a batch= that is a multiple of {recipe.accumulate * shares}"
        )
    if recipe.dim % recipe.heads:
        raise InputError(f"dim {recipe.dim} is no multiple of heads {recipe.heads}: give a dim= that is a multiple of heads=")
    _check_memory(recipe, shares, weight_shares, here)


def _check_memory(recipe: Recipe, shares: int, weight_shares: int, here: int) -> None:
    """What cannot fit is refused in words, before the system ends the process without any. Processes share a machine, and have a card each."""
    parameters = 12 * recipe.depth * recipe.dim**2 + recipe.dim * (recipe.words + 2048 + 512)
    machine, card = memory_here(), card_memory(recipe.device)
    # Every process begins with all weights, which it makes on the CPU.
    begun, trained = BYTES_PER_WEIGHT * parameters, BYTES_PER_PARAMETER * parameters // weight_shares
    for place, has, takes in (("this machine", machine, here * (begun if card else max(begun, trained))), ("a card", card or trained, trained)):
        if takes > has:
            raise InputError(
                f"dim {recipe.dim} and depth {recipe.depth} make about {parameters:,} parameters, which train in {takes / 2**30:,.1f} GiB"
                f"{f' ({here} processes)' if here > 1 else ''}; {place} has {has / 2**30:,.1f}: give a smaller dim= or depth="
            )
    part = recipe.batch // (recipe.accumulate * shares)
    if part * recipe.words * recipe.dim * recipe.depth * 64 * (1 if card else here) > 2 * (card or machine):
        raise InputError(f"{part} sequences of {recipe.words} at once are too large for this machine: give a smaller words= or batch=, or a larger accumulate=")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
