"""First on the PYTHONPATH of every process of the sandbox: Python runs it before any other code."""

import os
import sys

import celery_health_seal  # type: ignore[import-not-found]  # beside this file

celery_health_seal.install()

# The environment may have a sitecustomize of its own, which this one hides.
_here = os.path.dirname(os.path.abspath(__file__))
_path = sys.path[:]
_own = sys.modules.pop("sitecustomize", None)
sys.path[:] = [_entry for _entry in _path if os.path.abspath(_entry) != _here]
try:
    import sitecustomize  # type: ignore[import-not-found,unused-ignore]  # noqa: F401
except ModuleNotFoundError as _error:
    if _error.name != "sitecustomize":
        raise
finally:
    sys.path[:] = _path + [_entry for _entry in sys.path if _entry not in _path]
    if _own is not None:
        sys.modules.setdefault("sitecustomize", _own)
