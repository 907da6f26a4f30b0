"""How the network of a sampling runs, whatever it computes: compiled, replayed, in TF32."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from genzoo.core.process_settings import allow_tf32, process_settings
from genzoo.core.progress import counting
from genzoo.nn.compiled import compiled
from genzoo.nn.cuda_graphs import replayed

if TYPE_CHECKING:
    from genzoo.api.recipes.sections import Sampling
    from genzoo.core.types import Task


@dataclass(frozen=True)
class Execution:
    """Samples differ by rounding only.

    compile: blocks of the network are compiled by torch.compile at their first call.   cuda_graphs: what the
    network launches is recorded and replayed, for few samples on an NVIDIA GPU; of models of patches only.
    allow_tf32: on such a GPU, float32 products keep 10 bits of their factors' fractions.
    """

    compile: bool = False
    cuda_graphs: bool = False
    allow_tf32: bool = False

    @classmethod
    def chosen(cls, recipe: Sampling, **asked: bool | None) -> Execution:
        """As the recipe's sampler section says, and as asked where something was."""
        named = cls(recipe.compile, recipe.cuda_graphs, recipe.allow_tf32)
        return replace(named, **{name: value for name, value in asked.items() if value is not None})

    def described(self) -> dict[str, bool]:
        """What samples.json says: the things that are done."""
        return {name: True for name, value in asdict(self).items() if value}


@contextlib.contextmanager
def executed(task: Task, how: Execution) -> Iterator[None]:
    """Within the block the task's network runs like that; afterwards it is as it was.

    Long sampling says how often the network ran. Raises UsageError for a model or a device that cannot.
    """
    device = next(task.model.parameters()).device
    with contextlib.ExitStack() as stack:
        if how.allow_tf32:
            stack.enter_context(process_settings(device))
            allow_tf32(device)
        if how.compile:
            stack.enter_context(compiled(task.model))
        if how.cuda_graphs:
            stack.enter_context(replayed(task.model))
        one = stack.enter_context(counting("sampling: the network ran {} times"))
        hook = task.model.register_forward_pre_hook(one)
        stack.callback(hook.remove)
        yield
