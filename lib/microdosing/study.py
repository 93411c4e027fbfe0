"""What chapter 6 measures with its trained models: computed once, then loaded.

python -m lib.microdosing.study --preset laptop                         # whatever is missing, into runs/tables
python -m lib.microdosing.study --preset laptop --ship                  # into checkpoints/microdosing
python -m lib.microdosing.study --preset laptop --only stills table     # some: those whose models are trained
python -m lib.microdosing.study --preset laptop --only table_carphone   # one sequence
"""

from __future__ import annotations

from lib import store
from lib.microdosing import pictures, tables
from lib.microdosing.cases import Study

__all__ = ["Study", "pictures", "tables"]


if __name__ == "__main__":
    store.study_command("microdosing")
