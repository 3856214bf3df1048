"""i2i studio."""

from typing import Annotated

from i2i.cli.options import argument, option
from i2i.errors import RequestError


def studio(
    where: Annotated[str, argument(
        "[RUNS|MODEL]", "A folder with runs, data and models, a run, or a model.")] = ".",
    port: Annotated[int, option(
        None, "Port on 127.0.0.1; by default 7860, or any free one.", min=0, max=65535)] = 0,
    share_lan: Annotated[bool, option(
        None, "Others on the network may open the page for human judges, by a link with a token; nothing "
              "else.", "--share-lan")] = False,
) -> None:
    """Watch runs, translate, generate and judge in the browser; nothing leaves this machine."""
    from importlib.util import find_spec
    if find_spec("gradio") is None:
        raise RequestError("i2i studio needs gradio: pip install 'i2i-toolkit[studio]'")
    from i2i.cli.studio.server import serve
    from i2i.cli.studio.workspace import Workspace
    serve(Workspace(where), port, share_lan)
