"""``python -m dlx_deploy.runtime PACKAGE COMMAND``: as ``python PACKAGE COMMAND``, by this installation's code."""

import sys

from .commands.main import main
from .leaving import leave

leave(main(sys.argv[1:]))
