"""The one trainer: Accelerate loop, optimizer and learning-rate functions, EMA, hooks."""

from genzoo.core.registry import OPTIMIZERS

OPTIMIZERS.lazy("adamw", "genzoo.training.optim:adamw", help="Adam with decoupled weight decay")
OPTIMIZERS.lazy("adamw_8bit", "genzoo.training.adamw_8bit:adamw_8bit", help="AdamW with 8-bit moments")
OPTIMIZERS.lazy("adam", "genzoo.training.optim:adam", help="Adam; weight decay is added to the gradient")
OPTIMIZERS.lazy("sgd", "genzoo.training.optim:sgd", help="gradient descent with momentum")
OPTIMIZERS.lazy(
    "muon", "genzoo.training.muon:muon", help="Muon for matrices inside blocks, AdamW for all else"
)
