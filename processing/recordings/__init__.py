"""Reading, inspecting and writing of motion files."""

from lexmotion.common.lazy import lazy_names

_HOME = {"ReadingOptions": "options", "inspect_motion": "inspection", "load_motion": "reading", "save_bvh": "bvh"}
__all__ = sorted(_HOME)
__getattr__, __dir__ = lazy_names(__name__, _HOME)
