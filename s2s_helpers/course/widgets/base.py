"""What the widgets share: their page parts, errors shown beside them, and the picture they leave.

A widget is an anywidget: state in traits that Python and the browser both see, and one small ES
module that draws it, with no other file to fetch. Where a kernel is gone, or on a page that was
saved, the picture of `figure` stands in its place.
"""

import base64
import io
from pathlib import Path

import anywidget
import matplotlib.pyplot as plt
import traitlets
from matplotlib.figure import Figure

HERE = Path(__file__).parent
DOTS = 100  # an inch of a saved picture


def module(name: str) -> str:
    """The text of the ES module `name`.js, with the helpers of common.js before it.

    Joined here because a widget's module is handed to the browser as one text, so it can import
    nothing that lies beside it.
    """
    return "\n".join((HERE / f"{part}.js").read_text(encoding="utf-8") for part in ("common", name))


class Widget(anywidget.AnyWidget):
    """A widget that also leaves a picture. A subclass sets `_esm = module("its_name")`, and writes
    `figure` and `describe`.

    message: what went wrong with the last change made in the browser, or nothing.
    """

    _css = (HERE / "widgets.css").read_text(encoding="utf-8")

    message = traitlets.Unicode().tag(sync=True)

    def figure(self) -> Figure:
        """A still picture of the present state, which tells the same story."""
        raise NotImplementedError

    def describe(self) -> str:
        """The present state in one sentence, for whoever has neither widget nor picture."""
        raise NotImplementedError

    def set_state(self, sync_data):
        """Take what the browser sends. An error is told there, and the state stays as it was."""
        try:
            super().set_state(sync_data)
        except (traitlets.TraitError, ValueError) as error:
            self.send_state(list(sync_data))  # the browser goes back to what holds
            self.message = str(error)
        else:
            self.message = ""

    def _repr_mimebundle_(self, **kwargs):
        bundle = super()._repr_mimebundle_(**kwargs)
        data, metadata = bundle if isinstance(bundle, tuple) else (bundle or {}, {})
        data["text/plain"] = f"{type(self).__name__}: {self.describe()}"
        data["image/png"] = png(self.figure())
        return data, metadata


def png(figure: Figure) -> str:
    """The figure as a PNG in base64; it is closed, so that no cell shows it once more."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=DOTS)
    plt.close(figure)
    return base64.b64encode(file.getvalue()).decode("ascii")
