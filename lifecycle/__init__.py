"""What leaves the laptop: the parts of one ML lifecycle that a team takes home, and that the image holds.

Nothing here knows a data set, a folder or a clock. What differs from one project to the next comes from the
feature contract or a parameter. See ``contract`` for the one thing that all the others share.
"""

import atexit
import gc
import os

# An interpreter that ends looks for garbage several times. The tools leave half a million objects: over a
# second for each pipeline step and server, for memory that the system takes back anyway.
atexit.register(gc.freeze)

IMAGE = os.environ.get("LIFECYCLE_IMAGE", "ml-lifecycle:1.0")
"""The container image of pipeline steps, Katib trials and the model server.

``LIFECYCLE_IMAGE`` names another; it is read at import.
"""
