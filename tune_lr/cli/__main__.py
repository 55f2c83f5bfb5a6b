"""Run the command line as `python -m tune_lr.cli`."""

import sys

from tune_lr.cli.main import main

sys.exit(main())
