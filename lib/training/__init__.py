"""Training: a `Task` says what is trained, `train` does the rest, `task` declares it under a name.

tasks      Task: networks, data, losses              registry   @task, models(), make_task()
sampling   every draw from (seed, step, rank)        optimise   learning rate, optimisers (muon), moving averages
loop       train()                                   state      the folder of a run: resumed bit for bit
log        the CSV log                               divergence which layer stopped being finite
processes  one process, or those of torchrun         progress   bar and live curve
command    python -m lib.training background.flow --preset laptop --resume
           torchrun --nproc-per-node 4 -m lib.training background.flow --preset full --resume
"""

from lib.training.command import main
from lib.training.loop import TrainingDiverged, TrainingInterrupted, train
from lib.training.optimise import learning_rate
from lib.training.registry import build_task, make_task, models, task
from lib.training.sampling import sample_indices, seed_all
from lib.training.tasks import RunResult, Task

__all__ = [
    "RunResult",
    "Task",
    "TrainingDiverged",
    "TrainingInterrupted",
    "build_task",
    "learning_rate",
    "main",
    "make_task",
    "models",
    "sample_indices",
    "seed_all",
    "task",
    "train",
]
