"""What chapter 4 measures that takes long or needs data that no package carries: computed once, then loaded.

python -m lib.restoration.study --preset laptop --list              # what there is
python -m lib.restoration.study --preset laptop                     # whatever is missing, into runs/tables
python -m lib.restoration.study --preset laptop --only map --ship   # some of it, into checkpoints/restoration
"""

from __future__ import annotations

from lib import store
from lib.restoration import searches, standard, tables, tasks
from lib.restoration.cases import Study

__all__ = ["Study", "searches", "standard", "tables", "tasks"]

if __name__ == "__main__":
    store.study_command("restoration")
