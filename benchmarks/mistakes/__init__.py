"""What each of the published study's five mistakes does to its number, measured on this study's data."""

import os
import sys

if not sys.stderr.isatty():
    os.environ.setdefault("TQDM_DISABLE", "1")  # before anything that draws progress is imported
