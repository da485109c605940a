"""Log features, predictions and labels to a Kedge, and ask it questions."""

from .asgi import Recorder
from .client import Client, Frame, KedgeError
from .logger import Logger, Stats

__all__ = ["Client", "Frame", "KedgeError", "Logger", "Recorder", "Stats"]
__version__ = "0.1.0"
