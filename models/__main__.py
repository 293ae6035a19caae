"""`python -m models`: list mechanisms, train a model, generate from it, run the study."""

import os
import signal

if __name__ == "__main__":  # Ctrl-C during the imports that follow ends the process, without a traceback
    _ready = signal.signal(signal.SIGINT, lambda *_: os._exit(130))

from models.cli import main

if __name__ == "__main__":
    signal.signal(signal.SIGINT, _ready)
    main()
