"""`python -m models`: list mechanisms, train a model, generate from it, run the study."""

import os
import signal

if __name__ == "__main__":  # Ctrl-C during the imports that follow ends the process, without a traceback
    _ready = signal.signal(signal.SIGINT, lambda *_: os._exit(130))

import sys
from importlib.util import find_spec

if missing := [name for name in ("filelock", "PIL", "rich", "safetensors", "typer") if find_spec(name) is None]:
    sys.exit(f"models: {missing[0]} is missing, which the extra 'cli' installs: pip install -e '.[cli]'")

from minigrad import get_num_threads

if __name__ == "__main__":  # before the imports that follow, which take four times as long
    try:
        get_num_threads()  # which reads the environment
    except ValueError as error:
        print(f"python -m models: {error}", file=sys.stderr)
        sys.exit(2)

from models.cli import main

if __name__ == "__main__":
    signal.signal(signal.SIGINT, _ready)
    main()
