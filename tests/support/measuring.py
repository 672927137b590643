"""A measuring process for tests of the GPU benchmark that loads no PyTorch: a part's arguments say what it does."""

from __future__ import annotations

import os
import time
from multiprocessing.connection import Connection


def serve(connection: Connection) -> None:
    """As ``benchmarks.gpu.worker.serve``: a row of the process's number, then the end that the part asks for."""
    while (request := connection.recv()) is not None:
        part, _ = request
        connection.send(("row", {"process": os.getpid()}))
        match part.arguments.get("does"):
            case "crash":
                os._exit(9)
            case "hang":
                time.sleep(600)
            case "raise":
                connection.send(("end", "ValueError: as asked"))
            case "break the device":
                connection.send(("broken", "AcceleratorError: as asked"))
                return
            case _:
                connection.send(("end", None))
